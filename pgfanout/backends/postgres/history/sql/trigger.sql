-- Publishes the changes of a table. You may run this at any time: it replaces the result of an earlier run.
--
-- Only the table is looked up in the caller's search path. The owner of a schema in that path may have put functions,
-- operators and types there, which would run with the caller's rights. This block's types are looked up before it begins.
DO $do_@mark@$
DECLARE
    target pg_catalog.regclass := @target@;
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    key pg_catalog.text[];
    named pg_catalog.text[];
    columns pg_catalog.text[];
    home pg_catalog.text;
    table_name pg_catalog.text;
    function_name pg_catalog.text;
    owner pg_catalog.oid;
    revision pg_catalog.jsonb;
    problem pg_catalog.text;
    row_type pg_catalog.text;
    rows pg_catalog.text;
    type pg_catalog.oid;
    tenant pg_catalog.text;
    key_columns pg_catalog.text;
    key_numbers pg_catalog.text;
    key_renamed pg_catalog.text;
    key_values pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    key := @key@;
    named := @named@;
    SELECT nspname, format('%I.%I', nspname, relname), reltype::regtype INTO STRICT home, table_name, row_type
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = target::oid;
    function_name := format('%I.', home) || @function_text@;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', table_name);
    IF to_regclass(table_name) IS DISTINCT FROM target THEN
        RAISE EXCEPTION 'the table % was renamed or replaced meanwhile', table_name
            USING ERRCODE = 'object_in_use', HINT = 'Run it again.';
    END IF;
    SELECT relowner INTO STRICT owner FROM pg_class WHERE oid = target::oid;
    IF to_regnamespace('@schema@') IS NOT NULL
        AND to_regprocedure('@schema@.publish_many(text[], text[], json[], text[])') IS NULL
    THEN
        RAISE EXCEPTION 'the schema @schema@ has no history of this version'
            USING ERRCODE = 'undefined_function', HINT = 'Install it, or upgrade it: python -m pgfanout sql install';
    END IF;
    IF NOT has_schema_privilege(owner, '@schema@', 'USAGE')
        OR NOT has_function_privilege(owner, '@schema@.publish_many(text[], text[], json[], text[])', 'EXECUTE')
    THEN
        RAISE EXCEPTION 'the owner of the table %, %, may not publish into the history', target, owner::regrole
            USING ERRCODE = 'insufficient_privilege', HINT = 'Install the history with that role as a publisher.';
    END IF;

    -- A worker of an older release, which makes its triggers at each start, must not replace those of a newer release.
    BEGIN
        SELECT convert_from(substring(tgargs FROM 1 FOR octet_length(tgargs) - 1), getdatabaseencoding())::jsonb->'revision'
        INTO revision FROM pg_trigger WHERE tgrelid = target::oid AND tgname = @on_columns_text@ AND tgnargs = 1;
    EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
        NULL;  -- somebody else made this trigger: replace it
    END;
    IF revision > to_jsonb(@revision@) THEN
        RAISE WARNING 'the trigger of the table % is of a newer pgfanout, and is left alone', target;
        PERFORM set_config('search_path', path, true);
        RETURN;
    END IF;

    -- The named columns have to exist.
    IF cardinality(key) = 0 THEN
        SELECT array_agg(attname ORDER BY place) INTO key
        FROM pg_index CROSS JOIN unnest(indkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute ON attrelid = indrelid AND attnum = number
        WHERE indrelid = target::oid AND indisprimary AND place <= indnkeyatts;
        IF key IS NULL THEN
            RAISE EXCEPTION 'the table % has no primary key', target
                USING HINT = 'Name the columns of its key (--key): they have to be NOT NULL and have a unique index.';
        END IF;
    END IF;
    SELECT string_agg(quote_ident(name), ', ') INTO problem FROM unnest(@tenants@ || key || named) AS name
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = target::oid AND attname = name AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
    );
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'the table % has no column %', target, problem
            USING ERRCODE = 'undefined_column', HINT = 'A virtual column does not count: a trigger can''t read it.';
    END IF;

    -- The text of a UUID or an integer is a tenant as it is. So rows are compared without it, which is faster. PostgreSQL
    -- refuses to give the column another type later.
    SELECT atttypid INTO type FROM pg_attribute WHERE attrelid = target::oid AND ARRAY[attname::text] = @tenants@;
    WHILE (SELECT typtype = 'd' FROM pg_type WHERE oid = type) LOOP
        SELECT typbasetype INTO STRICT type FROM pg_type WHERE oid = type;
    END LOOP;
    tenant := format(CASE
        WHEN type IS NULL THEN quote_literal('@no_tenant@') || '::text'
        WHEN type IN ('uuid'::regtype, 'bigint'::regtype, 'integer'::regtype, 'smallint'::regtype) THEN '%I'
        ELSE '@schema@._tenant_text(%I::text COLLATE "C")'  -- the column's own collation may take two texts for equal
    END, (@tenants@)[1]);

    -- The key has to identify a row of a tenant. The unique index may be deferrable. Then rows with the same key may exist
    -- for a while, and `place` matches them.
    SELECT string_agg(quote_ident(attname), ', ') INTO problem FROM pg_attribute
    WHERE attrelid = target::oid AND attname = ANY (key) AND NOT attnotnull;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'the key of the table % may be NULL: %', target, problem
            USING HINT = 'Make it NOT NULL, or name other columns (--key); without --key it is the primary key.';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = target::oid AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL AND (
            SELECT bool_and(attname = ANY (key || @tenants@))
            FROM unnest(indkey) WITH ORDINALITY AS k (number, place)
                JOIN pg_attribute ON attrelid = indrelid AND attnum = number
            WHERE place <= indnkeyatts
        )
    ) THEN
        RAISE EXCEPTION 'the key of the table % is not unique: no unique index on %', target, array_to_string(key, ', ')
            USING HINT = 'Make one (it may have the tenant''s column, too), or name other columns (--key);'
                ' without --key it is the primary key.';
    END IF;
    SELECT string_agg(quote_ident(name), ', ' ORDER BY place), string_agg('k' || place, ', ' ORDER BY place),
        string_agg(quote_ident(name) || ' AS k' || place, ', ' ORDER BY place),
        string_agg('k' || place || ' AS ' || quote_ident(name), ', ' ORDER BY place)
    INTO key_columns, key_numbers, key_renamed, key_values
    FROM unnest(key) WITH ORDINALITY AS k (name, place);

    -- To find the columns that the condition reads, create a view with it and see which columns the view depends on.
    IF btrim($when_@mark@$@when@$when_@mark@$) <> '' THEN
        EXECUTE format('CREATE VIEW %s AS SELECT 1 AS one FROM %s WHERE (', function_name, table_name)
            || $when_@mark@$
@when@
)$when_@mark@$;
        named := named || ARRAY(
            SELECT attname FROM pg_rewrite JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
                JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
            WHERE ev_class = to_regclass(function_name)::oid
                AND refclassid = 'pg_class'::regclass AND refobjid = target::oid AND refobjsubid > 0 AND attgenerated <> 'v'
        );
        EXECUTE format('DROP VIEW %s', function_name);
    END IF;
    SELECT array_agg(name ORDER BY first) INTO columns FROM (
        SELECT name, min(place) AS first
        FROM unnest(@tenants@ || key || named) WITH ORDINALITY AS n (name, place) GROUP BY name
    ) AS distinct_names;
    IF strpos(array_to_string(columns, ' '), '@mark@$') > 0 THEN  -- it would end the quotes below
        RAISE EXCEPTION 'a column of the table % has a name that this script can''t quote', target
            USING HINT = 'Name it with --key or --columns.';
    END IF;

    -- The function is in the table's schema. Replace only a function that belongs to this table.
    IF EXISTS (
        SELECT FROM pg_proc WHERE oid = to_regprocedure(function_name || '()')::oid AND (
            proowner <> owner OR EXISTS (SELECT FROM pg_trigger WHERE tgfoid = pg_proc.oid AND tgrelid <> target::oid)
        )
    ) THEN
        RAISE EXCEPTION 'the function % is there already, and not this table''s', function_name
            USING HINT = 'It serves another table, or another role owns it: drop it, with its triggers.';
    END IF;

    -- A separate block computes the events. It changes nothing, so its subtransaction needs no transaction id. The events are
    -- published after it. An error in the block does not abort the transaction: the function tries again with the current
    -- names of the columns. If that fails, too, it publishes one update without a key to each tenant.
    EXECUTE 'CREATE OR REPLACE FUNCTION ' || function_name || $text_@mark@$() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body_@mark@$
#variable_conflict use_column
DECLARE
    pgfanout_usable boolean := false;
    pgfanout_problem text;
    pgfanout_channels text[];
    pgfanout_tenants text[];
    pgfanout_payloads json[];
    pgfanout_types text[];
    pgfanout_row text;
    pgfanout_sides text;
    pgfanout_passed_over bigint := 0;
BEGIN
BEGIN
IF NOT has_function_privilege('@schema@.publish_many(text[], text[], json[], text[])', 'EXECUTE') THEN
    RAISE insufficient_privilege USING MESSAGE = format('%s may not publish into the history', current_user);
END IF;
pgfanout_usable := true;
IF TG_OP = 'INSERT' THEN
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
@inserted@
) AS events;
ELSIF TG_OP = 'DELETE' THEN
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
@deleted@
) AS events;
ELSE
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
@updated@
) AS events;
END IF;
IF TG_OP = 'DELETE' THEN
SELECT count(*) INTO pgfanout_passed_over FROM old_rows WHERE @passed_over@;
ELSE
SELECT count(*) INTO pgfanout_passed_over FROM new_rows WHERE @passed_over@;
END IF;
EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name OR data_exception OR feature_not_supported
    OR internal_error
THEN
    pgfanout_problem := SQLERRM;
END;

IF pgfanout_usable AND pgfanout_problem IS NOT NULL THEN
    WITH renamed AS (
        SELECT attname AS now, name AS once
        FROM pg_trigger CROSS JOIN unnest(tgattr) WITH ORDINALITY AS c (number, place)
            JOIN unnest($text_@mark@$ || quote_literal(columns) || $text_@mark@$::text[]) WITH ORDINALITY AS n (name, place)
            USING (place)
            JOIN pg_attribute ON attrelid = tgrelid AND attnum = number
        WHERE tgrelid = TG_RELID AND tgname = @on_columns_text@ AND attname <> name
    )
    SELECT concat_ws(', ', (
        SELECT string_agg(format('%I', attname), ', ') FROM pg_attribute
        WHERE attrelid = TG_RELID AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v'
            AND attname NOT IN (SELECT once FROM renamed)
    ), (SELECT string_agg(format('%I AS %I', now, once), ', ') FROM renamed)) INTO pgfanout_row;
    pgfanout_sides := format(CASE TG_OP
        WHEN 'INSERT' THEN 'WITH new_rows AS (SELECT %1$s FROM new_rows)'
        WHEN 'DELETE' THEN 'WITH old_rows AS (SELECT %1$s FROM old_rows)'
        ELSE 'WITH old_rows AS (SELECT %1$s FROM old_rows), new_rows AS (SELECT %1$s FROM new_rows)'
    END, pgfanout_row);
    BEGIN
        EXECUTE pgfanout_sides || CASE TG_OP WHEN 'INSERT' THEN $query_@mark@$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
@inserted@
) AS events
$query_@mark@$ WHEN 'DELETE' THEN $query_@mark@$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
@deleted@
) AS events
$query_@mark@$ ELSE $query_@mark@$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
@updated@
) AS events
$query_@mark@$ END INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types;
        EXECUTE pgfanout_sides || CASE TG_OP WHEN 'DELETE' THEN $query_@mark@$
SELECT count(*) FROM old_rows WHERE @passed_over@
$query_@mark@$ ELSE $query_@mark@$
SELECT count(*) FROM new_rows WHERE @passed_over@
$query_@mark@$ END INTO pgfanout_passed_over;
        pgfanout_problem := NULL;
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name OR data_exception OR feature_not_supported
        OR internal_error
    THEN
        pgfanout_problem := SQLERRM;
    END;
    IF pgfanout_problem IS NOT NULL THEN
        BEGIN
            EXECUTE pgfanout_sides || $query_@mark@$
SELECT array_agg(@channel@::text), array_agg(tenant::text), array_agg('{"operation":"update","key":null}'::json),
    array_agg('update'::text)
FROM (
$query_@mark@$ || CASE TG_OP
                WHEN 'INSERT' THEN $query_@mark@$SELECT DISTINCT @tenant@ AS tenant FROM new_rows$query_@mark@$
                WHEN 'DELETE' THEN $query_@mark@$SELECT DISTINCT @tenant@ AS tenant FROM old_rows$query_@mark@$
                ELSE $query_@mark@$
SELECT @tenant@ AS tenant FROM old_rows UNION SELECT @tenant@ FROM new_rows
$query_@mark@$
            END || ') AS tenants WHERE tenant IS NOT NULL'
            INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types;
        EXCEPTION WHEN syntax_error_or_access_rule_violation OR data_exception OR internal_error THEN
            pgfanout_channels := NULL;
        END;
    END IF;
END IF;
IF pgfanout_problem IS NOT NULL THEN
    RAISE WARNING 'pgfanout can''t tell what has changed in the table %: %', TG_RELID::regclass, pgfanout_problem
        USING HINT = 'Make its trigger again (python -m pgfanout sql trigger), or drop it.';
END IF;
IF pgfanout_passed_over > 0 AND has_function_privilege('@schema@._pass_over(bigint)', 'EXECUTE') THEN
    PERFORM @schema@._pass_over(pgfanout_passed_over);
END IF;
IF cardinality(pgfanout_channels) > 0 THEN
    PERFORM @schema@.publish_many(pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types);
END IF;
RETURN NULL;
END
$body_@mark@$;
$text_@mark@$;

    -- A role with the right to execute it could use it to publish the rows of another table. Existing triggers don't need it.
    EXECUTE format('REVOKE ALL ON FUNCTION %s() FROM PUBLIC', function_name);

    -- Each trigger's condition makes it depend on the history, so it is dropped with the history. The last trigger never fires.
    -- It depends on the columns, so PostgreSQL refuses to drop them, and the function finds columns that were renamed. Its
    -- argument keeps the options.
    EXECUTE format($trigger_@mark@$
CREATE OR REPLACE TRIGGER %s AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (NULL::@schema@.event IS NULL AND NULL::@schema@.pending_many IS NULL) EXECUTE FUNCTION %s()
$trigger_@mark@$, @on_insert_sql@, table_name, function_name);
    EXECUTE format($trigger_@mark@$
CREATE OR REPLACE TRIGGER %s AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    WHEN (NULL::@schema@.event IS NULL AND NULL::@schema@.pending_many IS NULL) EXECUTE FUNCTION %s()
$trigger_@mark@$, @on_update_sql@, table_name, function_name);
    EXECUTE format($trigger_@mark@$
CREATE OR REPLACE TRIGGER %s AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT
    WHEN (NULL::@schema@.event IS NULL AND NULL::@schema@.pending_many IS NULL) EXECUTE FUNCTION %s()
$trigger_@mark@$, @on_delete_sql@, table_name, function_name);
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER %s AFTER UPDATE OF %s ON %s FOR EACH STATEMENT'
        ' WHEN (false AND NULL::@schema@.event IS NULL) EXECUTE FUNCTION %s(%L)',
        @on_columns_sql@, (SELECT string_agg(quote_ident(name), ', ') FROM unnest(columns) AS name), table_name,
        function_name, @options@::jsonb || jsonb_build_object('key', to_jsonb(key), 'names', to_jsonb(columns))
    );
    EXECUTE format('ALTER FUNCTION %s() OWNER TO %s', function_name, owner::regrole);

    -- Report an invalid condition now, not at the table's next change. Use rows of NULLs and not the table: planning a query
    -- on the table would call functions in its indexes with the caller's rights. Leave out virtual columns, which a trigger
    -- can't read.
    SELECT string_agg(format('(NULL::%s).%I', row_type, attname), ', ') INTO STRICT rows FROM pg_attribute
    WHERE attrelid = target::oid AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v';
    EXECUTE format(
        'EXPLAIN WITH old_rows AS MATERIALIZED (SELECT %1$s), new_rows AS MATERIALIZED (SELECT %1$s) SELECT * FROM (', rows
    ) || $text_@mark@$
@updated@
) AS events
$text_@mark@$;
    PERFORM set_config('search_path', path, true);
END
$do_@mark@$;
