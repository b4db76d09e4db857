-- Events of a table's changes. It may be run at any time: it replaces what an earlier run has made.
DO $do_@mark@$
DECLARE
    target regclass := @target@;
    path text := current_setting('search_path');
    home text;
    owner oid;
    rows text;
BEGIN
    LOCK TABLE ONLY @table@ IN SHARE ROW EXCLUSIVE MODE;
    SELECT relnamespace::regnamespace, relowner INTO STRICT home, owner FROM pg_class WHERE oid = target;
    IF NOT has_schema_privilege(owner, '@schema@', 'USAGE')
        OR NOT has_function_privilege(owner, '@schema@.publish_many(text[], uuid[], json[], text[])', 'EXECUTE')
    THEN
        RAISE EXCEPTION 'the owner of the table %, %, may not publish into the history', target, owner::regrole
            USING ERRCODE = 'insufficient_privilege', HINT = 'Install the history with that role as a publisher.';
    END IF;

    -- The function's place is beside the table, wherever the caller's path has found that.
    PERFORM set_config('search_path', home || ', pg_temp', true);
    IF EXISTS (
        SELECT FROM pg_proc WHERE oid = to_regprocedure(@function_text@ || '()') AND (
            proowner <> owner OR EXISTS (SELECT FROM pg_trigger WHERE tgfoid = pg_proc.oid AND tgrelid <> target)
        )
    ) THEN
        RAISE EXCEPTION 'the function %.% is there already, and not this table''s', home, @function_text@
            USING HINT = 'It serves another table, or another role owns it: drop it, with its triggers.';
    END IF;

CREATE OR REPLACE FUNCTION @function@() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body_@mark@$
#variable_conflict use_column
BEGIN
IF TG_OP = 'INSERT' THEN
PERFORM @inserted@;
ELSIF TG_OP = 'DELETE' THEN
PERFORM @deleted@;
ELSE
PERFORM @updated@;
END IF;
RETURN NULL;
END
$body_@mark@$;

    -- Who may execute it could let it publish what a table of their own holds. A trigger that is there needs no such right.
    REVOKE ALL ON FUNCTION @function@() FROM PUBLIC;

    CREATE OR REPLACE TRIGGER @on_insert@ AFTER INSERT ON @bare_table@
        REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION @function@();
    CREATE OR REPLACE TRIGGER @on_update@ AFTER UPDATE ON @bare_table@
        REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION @function@();
    CREATE OR REPLACE TRIGGER @on_delete@ AFTER DELETE ON @bare_table@
        REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION @function@();
    EXECUTE format('ALTER FUNCTION %s() OWNER TO %s', @function_text@, owner::regrole);

    -- A column that does not exist, or a condition that means nothing, is an error now and not at the table's next change.
    -- A virtual column is none here: PostgreSQL can't read it in what a trigger gets.
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT format('SELECT %s FROM %s', string_agg(quote_ident(attname), ', '), target) INTO STRICT rows FROM pg_attribute
    WHERE attrelid = target AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v';
    EXECUTE format('EXPLAIN WITH old_rows AS (%s), new_rows AS (%s) SELECT ', rows, rows) || $check_@mark@$
@updated@
$check_@mark@$;
    PERFORM set_config('search_path', path, true);
END
$do_@mark@$;
