CREATE ROLE pgfanout_upgrade_owner LOGIN;
CREATE ROLE pgfanout_upgrade_web LOGIN;
CREATE ROLE pgfanout_upgrade_hub LOGIN;
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA pgfanout;
ALTER SCHEMA pgfanout OWNER TO postgres;
CREATE SCHEMA shop;
ALTER SCHEMA shop OWNER TO pgfanout_upgrade_owner;
CREATE DOMAIN pgfanout.channel AS text NOT NULL
	CONSTRAINT "a channel has 1 to 63 bytes" CHECK (((octet_length(VALUE) >= 1) AND (octet_length(VALUE) <= 63)))
	CONSTRAINT "a channel has no control characters" CHECK ((VALUE !~ '[\x01-\x1f\x7f-\x9f]'::text));
ALTER DOMAIN pgfanout.channel OWNER TO postgres;
CREATE DOMAIN pgfanout.event_type AS text
	CONSTRAINT "a type is one line" CHECK ((VALUE !~ '[\x0a\x0d]'::text))
	CONSTRAINT "close and refresh are reserved" CHECK ((VALUE <> ALL (ARRAY['close'::text, 'refresh'::text])));
ALTER DOMAIN pgfanout.event_type OWNER TO postgres;
CREATE DOMAIN pgfanout.payload AS json NOT NULL;
ALTER DOMAIN pgfanout.payload OWNER TO postgres;
CREATE DOMAIN pgfanout.tenant AS uuid NOT NULL;
ALTER DOMAIN pgfanout.tenant OWNER TO postgres;
CREATE FUNCTION pgfanout._after_delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    last bigint := max(number) FROM gone;
BEGIN
    UPDATE pgfanout.log SET pruned_to = last WHERE pruned_to < last;
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._after_delete() OWNER TO postgres;
CREATE FUNCTION pgfanout._at_commit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
DECLARE
    done pg_catalog.text;
BEGIN
    INSERT INTO pgfanout.event AS written (number, channel, tenant, type, size, payload) VALUES (
        pgfanout._draw(1), OLD.channel, OLD.tenant, OLD.type,
        pg_catalog.octet_length(OLD.payload::pg_catalog.text), OLD.payload
    ) RETURNING pg_catalog.pg_notify('shop_events', pgfanout._notification(written)) INTO done;
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._at_commit() OWNER TO postgres;
CREATE FUNCTION pgfanout._at_commit_of_many() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    done bigint;
BEGIN
    WITH drawn AS MATERIALIZED (
        SELECT pgfanout._draw(cardinality(OLD.channels)) AS first
    ), written AS (
        INSERT INTO pgfanout.event AS written (number, channel, tenant, type, size, payload)
        SELECT first + place - 1, channel, tenant, type, octet_length(payload::text), payload
        FROM drawn, unnest(OLD.channels, OLD.tenants, OLD.types, OLD.payloads)
            WITH ORDINALITY AS e (channel, tenant, type, payload, place)
        RETURNING pg_notify('shop_events', pgfanout._notification(written))
    )
    SELECT count(*) INTO done FROM written;
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._at_commit_of_many() OWNER TO postgres;
CREATE FUNCTION pgfanout._before_commit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    DELETE FROM pgfanout.pending WHERE ctid OPERATOR(pg_catalog.=) NEW.ctid;
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._before_commit() OWNER TO postgres;
CREATE FUNCTION pgfanout._before_commit_of_many() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
BEGIN
    DELETE FROM pgfanout.pending_many WHERE ctid = NEW.ctid;
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._before_commit_of_many() OWNER TO postgres;
CREATE FUNCTION pgfanout._before_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    last bigint := pg_sequence_last_value('pgfanout.number');
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        SELECT max(number) INTO last FROM pgfanout.event;
    END IF;
    UPDATE pgfanout.log SET pruned_to = greatest(pruned_to, last), rows = 0;
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._before_truncate() OWNER TO postgres;
CREATE SEQUENCE pgfanout.number
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE pgfanout.number OWNER TO postgres;
CREATE FUNCTION pgfanout._draw(count integer) RETURNS bigint
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (pg_advisory_xact_lock('2736334665084926231'::bigint) IS NOT NULL) THEN ((setval('pgfanout.number'::regclass, ((GREATEST((pg_sequence_last_value('pgfanout.number'::regclass) + 1), ((date_part('epoch'::text, clock_timestamp()) * (1000000)::double precision))::bigint) + count) - 1)) - count) + 1)
             ELSE NULL::bigint
         END AS "case";
END;
ALTER FUNCTION pgfanout._draw(count integer) OWNER TO postgres;
CREATE FUNCTION pgfanout._installed(OUT version integer, OUT revision integer) RETURNS record
    LANGUAGE sql STABLE
    AS $$ SELECT 2, 1 $$;
ALTER FUNCTION pgfanout._installed(OUT version integer, OUT revision integer) OWNER TO postgres;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE pgfanout.event (
    number bigint NOT NULL,
    channel text NOT NULL,
    tenant uuid NOT NULL,
    type text NOT NULL,
    size integer NOT NULL,
    payload json NOT NULL
);
ALTER TABLE pgfanout.event OWNER TO postgres;
COMMENT ON TABLE pgfanout.event IS 'what was published, numbered in the order of the commits';
COMMENT ON COLUMN pgfanout.event.size IS 'bytes of the payload: how much to read at once is found without reading it';
CREATE FUNCTION pgfanout._notification(event pgfanout.event) RETURNS text
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT format('{"channel":%s,"tenant_id":"%s"%s,"id":"%s"}'::text, to_json((event).channel), (event).tenant,
         CASE
             WHEN (((event).size + (6 * octet_length((event).type))) <= (7999 - 239)) THEN ((',"payload":'::text || (event).payload) ||
             CASE
                 WHEN ((event).type <> ''::text) THEN (',"type":'::text || to_json((event).type))
                 ELSE ''::text
             END)
             ELSE NULL::text
         END, (event).number) AS format;
END;
ALTER FUNCTION pgfanout._notification(event pgfanout.event) OWNER TO postgres;
CREATE FUNCTION pgfanout._options(argument bytea) RETURNS jsonb
    LANGUAGE plpgsql STABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    options jsonb;
BEGIN
    options := convert_from(substring(argument FROM 1 FOR octet_length(argument) - 1), getdatabaseencoding());
    RETURN CASE WHEN jsonb_typeof(options) = 'object' THEN options END;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;
ALTER FUNCTION pgfanout._options(argument bytea) OWNER TO postgres;
CREATE FUNCTION pgfanout._too_old(age interval) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    now timestamptz := clock_timestamp();
    last bigint := pg_sequence_last_value('pgfanout.number');
    too_old bigint := floor(extract(epoch FROM now - age) * 1000000);
BEGIN
    DELETE FROM pgfanout.seen WHERE at > now;  -- by a clock that was wrong
    IF last > extract(epoch FROM now + interval '1 minute') * 1000000 THEN
        INSERT INTO pgfanout.seen (at, number)
        SELECT now, last
        WHERE NOT EXISTS (SELECT FROM pgfanout.seen WHERE at > now - age / 1000 OR number = last);
        too_old := greatest(too_old, (SELECT max(number) FROM pgfanout.seen WHERE at <= clock_timestamp() - age));
        DELETE FROM pgfanout.seen WHERE number < too_old;
    ELSE
        DELETE FROM pgfanout.seen;
    END IF;
    RETURN too_old;
END
$$;
ALTER FUNCTION pgfanout._too_old(age interval) OWNER TO postgres;
CREATE FUNCTION pgfanout.prune(batch integer DEFAULT 1000, every double precision DEFAULT 60) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    settings pgfanout.log;
    first bigint;
    too_many bigint;
    last bigint;
    gone integer;
BEGIN
    LOCK TABLE pgfanout.event IN ROW EXCLUSIVE MODE;  -- before the row of `log`, as TRUNCATE and DELETE take them
    -- The row's lock keeps others from pruning. Unlike an advisory lock it requires rights, so no stranger can hold it.
    SELECT * INTO settings FROM pgfanout.log FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT FROM pgfanout.log) THEN
            RAISE EXCEPTION 'the history in the schema pgfanout has lost its settings, the row of pgfanout.log'
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Install it again, which repairs it.';
        END IF;
        RETURN NULL;
    END IF;
    IF settings.planned_at NOT BETWEEN clock_timestamp() - every / 2 * interval '1 second' AND clock_timestamp() THEN
        SELECT count(*), min(number) INTO settings.rows, first FROM pgfanout.event;
        IF settings.rows > settings.max_rows THEN
            SELECT number INTO too_many FROM pgfanout.event ORDER BY number DESC OFFSET settings.max_rows LIMIT 1;
        END IF;
        settings.prune_to := greatest(settings.pruned_to, pgfanout._too_old(settings.max_age), too_many);
        UPDATE pgfanout.log SET rows = settings.rows, prune_to = settings.prune_to, planned_at = clock_timestamp();
        PERFORM setval('pgfanout.oldest', greatest(first, 1));
    END IF;
    SELECT last_value INTO first FROM pgfanout.oldest;
    WITH pruned AS (
        DELETE FROM pgfanout.event WHERE number IN (
            SELECT number FROM pgfanout.event WHERE number BETWEEN first AND settings.prune_to
            ORDER BY number LIMIT batch FOR UPDATE SKIP LOCKED
        ) RETURNING number
    )
    SELECT count(*), max(number) INTO gone, last FROM pruned;
    IF gone > 0 THEN
        PERFORM setval('pgfanout.oldest', last + 1);  -- an event that was skipped is found by the next plan
        UPDATE pgfanout.log SET rows = greatest(0, rows - gone);
    END IF;
    RETURN gone;
END
$$;
ALTER FUNCTION pgfanout.prune(batch integer, every double precision) OWNER TO postgres;
COMMENT ON FUNCTION pgfanout.prune(batch integer, every double precision) IS 'remove some of the events that are too old or too many';
CREATE FUNCTION pgfanout.publish(channel text, tenant uuid, payload json, type text DEFAULT ''::text) RETURNS void
    LANGUAGE sql
    AS $$ SELECT pgfanout.publish(channel, tenant, payload::text, type) $$;
ALTER FUNCTION pgfanout.publish(channel text, tenant uuid, payload json, type text) OWNER TO postgres;
CREATE FUNCTION pgfanout.publish(channel text, tenant uuid, payload jsonb, type text DEFAULT ''::text) RETURNS void
    LANGUAGE sql
    AS $$ SELECT pgfanout.publish(channel, tenant, payload::text, type) $$;
ALTER FUNCTION pgfanout.publish(channel text, tenant uuid, payload jsonb, type text) OWNER TO postgres;
CREATE FUNCTION pgfanout.publish(channel text, tenant uuid, payload text, type text DEFAULT ''::text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
BEGIN
    INSERT INTO pgfanout.pending (channel, tenant, type, payload) VALUES (
        channel::pgfanout.channel, tenant::pgfanout.tenant, coalesce(type, '')::pgfanout.event_type, payload::pgfanout.payload
    );
END
$$;
ALTER FUNCTION pgfanout.publish(channel text, tenant uuid, payload text, type text) OWNER TO postgres;
COMMENT ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload text, type text) IS 'publish one event when the transaction commits: channel, tenant, payload (JSON), type';
CREATE FUNCTION pgfanout.publish_many(channels text[], tenants uuid[], payloads json[], types text[] DEFAULT NULL::text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO pgfanout.pending_many (channels, tenants, types, payloads)
    SELECT array_agg(channel::pgfanout.channel::text ORDER BY place), array_agg(tenant::pgfanout.tenant::uuid ORDER BY place),
        array_agg(coalesce(type, '')::pgfanout.event_type::text ORDER BY place),
        array_agg(payload::pgfanout.payload::json ORDER BY place)  -- a sort on disk keeps no order by itself
    FROM (
        SELECT channel, tenant, payload, type, place, (place - 1) / 1000 AS chunk
        FROM unnest(channels, tenants, payloads, types) WITH ORDINALITY AS e (channel, tenant, payload, type, place)
    ) AS events
    GROUP BY chunk ORDER BY chunk;
END
$$;
ALTER FUNCTION pgfanout.publish_many(channels text[], tenants uuid[], payloads json[], types text[]) OWNER TO postgres;
COMMENT ON FUNCTION pgfanout.publish_many(channels text[], tenants uuid[], payloads json[], types text[]) IS 'publish many events when the transaction commits, in their order';
CREATE FUNCTION shop."pgfanout_Order Items"() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
DECLARE
    pgfanout_usable boolean := false;
    pgfanout_problem text;
    pgfanout_channels text[];
    pgfanout_tenants uuid[];
    pgfanout_payloads json[];
    pgfanout_types text[];
    pgfanout_row text;
    pgfanout_sides text;
BEGIN
BEGIN
IF NOT has_function_privilege('pgfanout.publish_many(text[], uuid[], json[], text[])', 'EXECUTE') THEN
    RAISE insufficient_privilege USING MESSAGE = format('%s may not publish into the history', current_user);
END IF;
pgfanout_usable := true;
IF TG_OP = 'INSERT' THEN
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
SELECT 'items' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS ref, k2 AS line) AS columns) AS key) AS event
) AS payload
FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM new_rows WHERE "tenant" IS NOT NULL
) AS changes
ORDER BY k1, k2, type
) AS events;
ELSIF TG_OP = 'DELETE' THEN
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
SELECT 'items' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS ref, k2 AS line) AS columns) AS key) AS event
) AS payload
FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM old_rows WHERE "tenant" IS NOT NULL
) AS changes
ORDER BY k1, k2, type
) AS events;
ELSE
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
SELECT 'items' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS ref, k2 AS line) AS columns) AS key) AS event
) AS payload
FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1, k2
FROM (
SELECT (old_rows.*)::record AS image, row_number() OVER (PARTITION BY "tenant", ref, line) AS place, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM old_rows WHERE "tenant" IS NOT NULL
) AS before FULL JOIN (
SELECT (new_rows.*)::record AS image, row_number() OVER (PARTITION BY "tenant", ref, line) AS place, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM new_rows WHERE "tenant" IS NOT NULL
) AS after USING (tenant, k1, k2, place)
WHERE (before.image *= after.image) IS NOT TRUE
) AS changes
ORDER BY k1, k2, type
) AS events;
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
            JOIN unnest('{tenant,ref,line}'::text[]) WITH ORDINALITY AS n (name, place)
            USING (place)
            JOIN pg_attribute ON attrelid = tgrelid AND attnum = number
        WHERE tgrelid = TG_RELID AND tgname = 'pgfanout_columns' AND attname <> name
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
        EXECUTE pgfanout_sides || CASE TG_OP WHEN 'INSERT' THEN $query_0$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
SELECT 'items' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS ref, k2 AS line) AS columns) AS key) AS event
) AS payload
FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM new_rows WHERE "tenant" IS NOT NULL
) AS changes
ORDER BY k1, k2, type
) AS events
$query_0$ WHEN 'DELETE' THEN $query_0$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
SELECT 'items' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS ref, k2 AS line) AS columns) AS key) AS event
) AS payload
FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM old_rows WHERE "tenant" IS NOT NULL
) AS changes
ORDER BY k1, k2, type
) AS events
$query_0$ ELSE $query_0$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
SELECT 'items' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS ref, k2 AS line) AS columns) AS key) AS event
) AS payload
FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1, k2
FROM (
SELECT (old_rows.*)::record AS image, row_number() OVER (PARTITION BY "tenant", ref, line) AS place, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM old_rows WHERE "tenant" IS NOT NULL
) AS before FULL JOIN (
SELECT (new_rows.*)::record AS image, row_number() OVER (PARTITION BY "tenant", ref, line) AS place, "tenant"::uuid AS tenant, ref AS k1, line AS k2 FROM new_rows WHERE "tenant" IS NOT NULL
) AS after USING (tenant, k1, k2, place)
WHERE (before.image *= after.image) IS NOT TRUE
) AS changes
ORDER BY k1, k2, type
) AS events
$query_0$ END INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types;
        pgfanout_problem := NULL;
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name OR data_exception OR feature_not_supported
        OR internal_error
    THEN
        pgfanout_problem := SQLERRM;
    END;
    IF pgfanout_problem IS NOT NULL THEN
        BEGIN
            EXECUTE pgfanout_sides || $query_0$
SELECT array_agg('items'::text), array_agg(tenant), array_agg('{"operation":"update","key":null}'::json),
    array_agg('update'::text)
FROM (SELECT DISTINCT "tenant"::uuid AS tenant FROM (
$query_0$ || CASE TG_OP
                WHEN 'INSERT' THEN $query_0$SELECT "tenant" FROM new_rows$query_0$
                WHEN 'DELETE' THEN $query_0$SELECT "tenant" FROM old_rows$query_0$
                ELSE $query_0$
SELECT "tenant" FROM old_rows UNION SELECT "tenant" FROM new_rows
$query_0$
            END || ') AS rows) AS tenants WHERE tenant IS NOT NULL'
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
IF cardinality(pgfanout_channels) > 0 THEN
    PERFORM pgfanout.publish_many(pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types);
END IF;
RETURN NULL;
END
$_$;
ALTER FUNCTION shop."pgfanout_Order Items"() OWNER TO pgfanout_upgrade_owner;
CREATE FUNCTION shop.pgfanout_orders() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
DECLARE
    pgfanout_usable boolean := false;
    pgfanout_problem text;
    pgfanout_channels text[];
    pgfanout_tenants uuid[];
    pgfanout_payloads json[];
    pgfanout_types text[];
    pgfanout_row text;
    pgfanout_sides text;
BEGIN
BEGIN
IF NOT has_function_privilege('pgfanout.publish_many(text[], uuid[], json[], text[])', 'EXECUTE') THEN
    RAISE insufficient_privilege USING MESSAGE = format('%s may not publish into the history', current_user);
END IF;
pgfanout_usable := true;
IF TG_OP = 'INSERT' THEN
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
SELECT 'orders' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS id) AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
) AS payload
FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM new_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS changes
ORDER BY k1, type
) AS events;
ELSIF TG_OP = 'DELETE' THEN
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
SELECT 'orders' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS id) AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
) AS payload
FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM old_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS changes
ORDER BY k1, type
) AS events;
ELSE
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type)
INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types FROM (
SELECT 'orders' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS id) AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
) AS payload
FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1, CASE WHEN after.tenant IS NULL THEN before.p1 ELSE after.p1 END AS p1, CASE WHEN after.tenant IS NULL THEN before.p2 ELSE after.p2 END AS p2
FROM (
SELECT ROW("status", "total") AS image, row_number() OVER (PARTITION BY "tenant", id) AS place, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM old_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS before FULL JOIN (
SELECT ROW("status", "total") AS image, row_number() OVER (PARTITION BY "tenant", id) AS place, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM new_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS after USING (tenant, k1, place)
WHERE (before.image *= after.image) IS NOT TRUE
) AS changes
ORDER BY k1, type
) AS events;
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
            JOIN unnest('{tenant,id,status,total}'::text[]) WITH ORDINALITY AS n (name, place)
            USING (place)
            JOIN pg_attribute ON attrelid = tgrelid AND attnum = number
        WHERE tgrelid = TG_RELID AND tgname = 'pgfanout_columns' AND attname <> name
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
        EXECUTE pgfanout_sides || CASE TG_OP WHEN 'INSERT' THEN $query_0$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
SELECT 'orders' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS id) AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
) AS payload
FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM new_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS changes
ORDER BY k1, type
) AS events
$query_0$ WHEN 'DELETE' THEN $query_0$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
SELECT 'orders' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS id) AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
) AS payload
FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM old_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS changes
ORDER BY k1, type
) AS events
$query_0$ ELSE $query_0$
SELECT array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type) FROM (
SELECT 'orders' AS channel, tenant, type, (
    SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS id) AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
) AS payload
FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1, CASE WHEN after.tenant IS NULL THEN before.p1 ELSE after.p1 END AS p1, CASE WHEN after.tenant IS NULL THEN before.p2 ELSE after.p2 END AS p2
FROM (
SELECT ROW("status", "total") AS image, row_number() OVER (PARTITION BY "tenant", id) AS place, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM old_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS before FULL JOIN (
SELECT ROW("status", "total") AS image, row_number() OVER (PARTITION BY "tenant", id) AS place, "tenant"::uuid AS tenant, id AS k1, "id" AS p1, "status" AS p2 FROM new_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS after USING (tenant, k1, place)
WHERE (before.image *= after.image) IS NOT TRUE
) AS changes
ORDER BY k1, type
) AS events
$query_0$ END INTO pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types;
        pgfanout_problem := NULL;
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name OR data_exception OR feature_not_supported
        OR internal_error
    THEN
        pgfanout_problem := SQLERRM;
    END;
    IF pgfanout_problem IS NOT NULL THEN
        BEGIN
            EXECUTE pgfanout_sides || $query_0$
SELECT array_agg('orders'::text), array_agg(tenant), array_agg('{"operation":"update","key":null}'::json),
    array_agg('update'::text)
FROM (SELECT DISTINCT "tenant"::uuid AS tenant FROM (
$query_0$ || CASE TG_OP
                WHEN 'INSERT' THEN $query_0$SELECT "tenant" FROM new_rows$query_0$
                WHEN 'DELETE' THEN $query_0$SELECT "tenant" FROM old_rows$query_0$
                ELSE $query_0$
SELECT "tenant" FROM old_rows UNION SELECT "tenant" FROM new_rows
$query_0$
            END || ') AS rows) AS tenants WHERE tenant IS NOT NULL'
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
IF cardinality(pgfanout_channels) > 0 THEN
    PERFORM pgfanout.publish_many(pgfanout_channels, pgfanout_tenants, pgfanout_payloads, pgfanout_types);
END IF;
RETURN NULL;
END
$_$;
ALTER FUNCTION shop.pgfanout_orders() OWNER TO pgfanout_upgrade_owner;
CREATE TABLE pgfanout.log (
    the_only boolean DEFAULT true NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    postgres_channel text DEFAULT 'pgfanout_events'::text NOT NULL,
    max_age interval DEFAULT '1 day'::interval NOT NULL,
    max_rows bigint DEFAULT 1000000 NOT NULL,
    max_payload integer DEFAULT 1048576 NOT NULL,
    pruned_to bigint NOT NULL,
    prune_to bigint NOT NULL,
    rows bigint DEFAULT 0 NOT NULL,
    planned_at timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL,
    CONSTRAINT log_the_only_check CHECK (the_only)
);
ALTER TABLE pgfanout.log OWNER TO postgres;
COMMENT ON COLUMN pgfanout.log.pruned_to IS 'every event after this number is in the log';
COMMENT ON COLUMN pgfanout.log.prune_to IS 'events up to this number are to go';
COMMENT ON COLUMN pgfanout.log.rows IS 'how many events there were at planned_at';
CREATE SEQUENCE pgfanout.oldest
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE pgfanout.oldest OWNER TO postgres;
CREATE UNLOGGED TABLE pgfanout.pending (
    channel text NOT NULL,
    tenant uuid NOT NULL,
    type text NOT NULL,
    payload json NOT NULL
);
ALTER TABLE pgfanout.pending OWNER TO postgres;
CREATE UNLOGGED TABLE pgfanout.pending_many (
    channels text[] NOT NULL,
    tenants uuid[] NOT NULL,
    types text[] NOT NULL,
    payloads json[] NOT NULL
);
ALTER TABLE pgfanout.pending_many OWNER TO postgres;
CREATE TABLE pgfanout.seen (
    at timestamp with time zone NOT NULL,
    number bigint NOT NULL
);
ALTER TABLE pgfanout.seen OWNER TO postgres;
COMMENT ON TABLE pgfanout.seen IS 'while numbers are ahead of the clock: at that time, this was the last number';
CREATE VIEW pgfanout.table_trigger AS
 SELECT watched,
        CASE
            WHEN ((options ->> 'revision'::text) ~ '^[0-9]{1,9}$'::text) THEN ((options ->> 'revision'::text))::integer
            ELSE NULL::integer
        END AS revision,
    (options - '{revision,names}'::text[]) AS options,
    ( SELECT COALESCE(jsonb_object_agg(n.name, pg_attribute.attname), '{}'::jsonb) AS "coalesce"
           FROM ((unnest(found.columns) WITH ORDINALITY c(number, place)
             JOIN jsonb_array_elements_text(
                CASE
                    WHEN (jsonb_typeof((found.options -> 'names'::text)) = 'array'::text) THEN (found.options -> 'names'::text)
                    ELSE '[]'::jsonb
                END) WITH ORDINALITY n(name, place) USING (place))
             JOIN pg_attribute ON (((pg_attribute.attrelid = (found.watched)::oid) AND (pg_attribute.attnum = c.number))))
          WHERE (pg_attribute.attname <> n.name)) AS renamed
   FROM ( SELECT (pg_trigger.tgrelid)::regclass AS watched,
            pg_trigger.tgattr AS columns,
                CASE
                    WHEN (pg_trigger.tgnargs = 1) THEN pgfanout._options(pg_trigger.tgargs)
                    ELSE NULL::jsonb
                END AS options
           FROM (pg_trigger
             JOIN pg_class ON ((pg_class.oid = pg_trigger.tgrelid)))
          WHERE ((pg_trigger.tgname = 'pgfanout_columns'::name) AND (NOT pg_trigger.tgisinternal) AND (pg_class.relpersistence <> 't'::"char") AND (EXISTS ( SELECT
                   FROM pg_depend
                  WHERE ((pg_depend.classid = ('pg_trigger'::regclass)::oid) AND (pg_depend.objid = pg_trigger.oid) AND (pg_depend.refclassid = ('pg_type'::regclass)::oid) AND (pg_depend.refobjid = ('pgfanout.event'::regtype)::oid)))))) found;
ALTER VIEW pgfanout.table_trigger OWNER TO postgres;
COMMENT ON VIEW pgfanout.table_trigger IS 'the tables that publish by themselves, and with which options';
CREATE TABLE shop."Order Items" (
    ref uuid NOT NULL,
    line integer NOT NULL,
    tenant uuid
);
ALTER TABLE shop."Order Items" OWNER TO pgfanout_upgrade_owner;
CREATE TABLE shop.orders (
    id integer NOT NULL,
    tenant uuid,
    status text,
    total numeric,
    note text
);
ALTER TABLE shop.orders OWNER TO pgfanout_upgrade_owner;
CREATE TABLE shop.tags (
    name text,
    tenant text
);
ALTER TABLE shop.tags OWNER TO pgfanout_upgrade_owner;
INSERT INTO pgfanout.event VALUES (1796090759351928, 'orders', '11111111-1111-4111-8111-111111111111', 'first', 1, '0');
INSERT INTO pgfanout.event VALUES (1796090759357108, 'orders', '11111111-1111-4111-8111-111111111111', 'order.created', 24, '"a ''quoted'' \"text\" é"');
INSERT INTO pgfanout.event VALUES (1796090759357906, 'orders', '11111111-1111-4111-8111-111111111111', 'a', 1, '2');
INSERT INTO pgfanout.event VALUES (1796090759357907, 'stock', '11111111-1111-4111-8111-111111111111', 'b', 1, '3');
INSERT INTO pgfanout.event VALUES (1796090759358348, 'orders', '11111111-1111-4111-8111-111111111111', '', 9002, '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"');
INSERT INTO pgfanout.event VALUES (1796090759361642, 'orders', '11111111-1111-4111-8111-111111111111', 'insert', 67, '{"operation":"insert","key":{"id":1},"row":{"id":1,"status":"new"}}');
INSERT INTO pgfanout.event VALUES (1796090759362692, 'orders', '11111111-1111-4111-8111-111111111111', 'update', 68, '{"operation":"update","key":{"id":1},"row":{"id":1,"status":"paid"}}');
INSERT INTO pgfanout.event VALUES (1796090759362693, 'orders', '11111111-1111-4111-8111-111111111111', 'insert', 68, '{"operation":"insert","key":{"id":2},"row":{"id":2,"status":"paid"}}');
INSERT INTO pgfanout.event VALUES (1796090759363605, 'items', '11111111-1111-4111-8111-111111111111', 'insert', 84, '{"operation":"insert","key":{"ref":"11111111-1111-4111-8111-111111111111","line":1}}');
INSERT INTO pgfanout.log VALUES (true, 2, 'shop_events', '72000:00:00', 5000, 1048576, 1796090759351652, 1796090759351652, 1, '2026-12-01 02:05:59.352843+00');
INSERT INTO shop."Order Items" VALUES ('11111111-1111-4111-8111-111111111111', 1, '11111111-1111-4111-8111-111111111111');
INSERT INTO shop.orders VALUES (1, '11111111-1111-4111-8111-111111111111', 'paid', 9.5, NULL);
INSERT INTO shop.orders VALUES (2, '11111111-1111-4111-8111-111111111111', 'paid', 1, NULL);
INSERT INTO shop.tags VALUES ('a', '11111111-1111-4111-8111-111111111111');
INSERT INTO shop.tags VALUES ('b', '11111111-1111-4111-8111-111111111111');
SELECT pg_catalog.setval('pgfanout.number', 1796090759363605, true);
SELECT pg_catalog.setval('pgfanout.oldest', 1796090759351653, true);
ALTER DOMAIN pgfanout.payload
    ADD CONSTRAINT "a payload has a limited size" CHECK ((octet_length((VALUE)::text) <= 1048576)) NOT VALID;
ALTER DOMAIN pgfanout.event_type
    ADD CONSTRAINT "a type has at most 255 bytes" CHECK ((octet_length(VALUE) <= 255)) NOT VALID;
ALTER TABLE ONLY pgfanout.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (number);
ALTER TABLE ONLY pgfanout.log
    ADD CONSTRAINT log_pkey PRIMARY KEY (the_only);
ALTER DOMAIN pgfanout.event_type
    ADD CONSTRAINT "types that begin with pgfanout. are reserved" CHECK ((VALUE !~~ 'pgfanout.%'::text)) NOT VALID;
ALTER TABLE ONLY shop."Order Items"
    ADD CONSTRAINT "Order Items_pkey" PRIMARY KEY (ref, line);
ALTER TABLE ONLY shop.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
CREATE INDEX event_topic ON pgfanout.event USING btree (tenant, channel, number);
CREATE TRIGGER after_delete AFTER DELETE ON pgfanout.event REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION pgfanout._after_delete();
ALTER TABLE pgfanout.event ENABLE ALWAYS TRIGGER after_delete;
CREATE CONSTRAINT TRIGGER at_commit AFTER DELETE ON pgfanout.pending DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._at_commit();
ALTER TABLE pgfanout.pending ENABLE ALWAYS TRIGGER at_commit;
CREATE CONSTRAINT TRIGGER at_commit AFTER DELETE ON pgfanout.pending_many DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._at_commit_of_many();
ALTER TABLE pgfanout.pending_many ENABLE ALWAYS TRIGGER at_commit;
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON pgfanout.pending DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._before_commit();
ALTER TABLE pgfanout.pending ENABLE ALWAYS TRIGGER before_commit;
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON pgfanout.pending_many DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._before_commit_of_many();
ALTER TABLE pgfanout.pending_many ENABLE ALWAYS TRIGGER before_commit;
CREATE TRIGGER before_truncate BEFORE TRUNCATE ON pgfanout.event FOR EACH STATEMENT EXECUTE FUNCTION pgfanout._before_truncate();
ALTER TABLE pgfanout.event ENABLE ALWAYS TRIGGER before_truncate;
CREATE TRIGGER pgfanout_columns AFTER UPDATE OF tenant, ref, line ON shop."Order Items" FOR EACH STATEMENT WHEN ((false AND (NULL::pgfanout.event IS NULL))) EXECUTE FUNCTION shop."pgfanout_Order Items"('{"key": ["ref", "line"], "when": "", "names": ["tenant", "ref", "line"], "table": "shop.Order Items", "schema": "pgfanout", "tenant": "tenant", "channel": "items", "columns": [], "payload": [], "revision": 1}');
CREATE TRIGGER pgfanout_columns AFTER UPDATE OF tenant, id, status, total ON shop.orders FOR EACH STATEMENT WHEN ((false AND (NULL::pgfanout.event IS NULL))) EXECUTE FUNCTION shop.pgfanout_orders('{"key": ["id"], "when": "status <> ''draft''", "names": ["tenant", "id", "status", "total"], "table": "shop.orders", "schema": "pgfanout", "tenant": "tenant", "channel": "", "columns": ["status", "total"], "payload": ["id", "status"], "revision": 1}');
CREATE TRIGGER pgfanout_delete AFTER DELETE ON shop."Order Items" REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT WHEN (((NULL::pgfanout.event IS NULL) AND (NULL::pgfanout.pending_many IS NULL))) EXECUTE FUNCTION shop."pgfanout_Order Items"();
CREATE TRIGGER pgfanout_delete AFTER DELETE ON shop.orders REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT WHEN (((NULL::pgfanout.event IS NULL) AND (NULL::pgfanout.pending_many IS NULL))) EXECUTE FUNCTION shop.pgfanout_orders();
CREATE TRIGGER pgfanout_insert AFTER INSERT ON shop."Order Items" REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (((NULL::pgfanout.event IS NULL) AND (NULL::pgfanout.pending_many IS NULL))) EXECUTE FUNCTION shop."pgfanout_Order Items"();
CREATE TRIGGER pgfanout_insert AFTER INSERT ON shop.orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (((NULL::pgfanout.event IS NULL) AND (NULL::pgfanout.pending_many IS NULL))) EXECUTE FUNCTION shop.pgfanout_orders();
CREATE TRIGGER pgfanout_update AFTER UPDATE ON shop."Order Items" REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (((NULL::pgfanout.event IS NULL) AND (NULL::pgfanout.pending_many IS NULL))) EXECUTE FUNCTION shop."pgfanout_Order Items"();
CREATE TRIGGER pgfanout_update AFTER UPDATE ON shop.orders REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (((NULL::pgfanout.event IS NULL) AND (NULL::pgfanout.pending_many IS NULL))) EXECUTE FUNCTION shop.pgfanout_orders();
GRANT USAGE ON SCHEMA pgfanout TO pgfanout_upgrade_owner;
GRANT USAGE ON SCHEMA pgfanout TO pgfanout_upgrade_web;
GRANT USAGE ON SCHEMA pgfanout TO pgfanout_upgrade_hub;
REVOKE ALL ON FUNCTION pgfanout._after_delete() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._at_commit() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._at_commit_of_many() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._before_commit() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._before_commit_of_many() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._before_truncate() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._draw(count integer) FROM PUBLIC;
GRANT SELECT ON TABLE pgfanout.event TO pgfanout_upgrade_hub;
REVOKE ALL ON FUNCTION pgfanout._notification(event pgfanout.event) FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._too_old(age interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout.prune(batch integer, every double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION pgfanout.prune(batch integer, every double precision) TO pgfanout_upgrade_hub;
REVOKE ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload json, type text) FROM PUBLIC;
GRANT ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload json, type text) TO pgfanout_upgrade_owner;
GRANT ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload json, type text) TO pgfanout_upgrade_web;
REVOKE ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload jsonb, type text) FROM PUBLIC;
GRANT ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload jsonb, type text) TO pgfanout_upgrade_owner;
GRANT ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload jsonb, type text) TO pgfanout_upgrade_web;
REVOKE ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload text, type text) FROM PUBLIC;
GRANT ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload text, type text) TO pgfanout_upgrade_owner;
GRANT ALL ON FUNCTION pgfanout.publish(channel text, tenant uuid, payload text, type text) TO pgfanout_upgrade_web;
REVOKE ALL ON FUNCTION pgfanout.publish_many(channels text[], tenants uuid[], payloads json[], types text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION pgfanout.publish_many(channels text[], tenants uuid[], payloads json[], types text[]) TO pgfanout_upgrade_owner;
GRANT ALL ON FUNCTION pgfanout.publish_many(channels text[], tenants uuid[], payloads json[], types text[]) TO pgfanout_upgrade_web;
REVOKE ALL ON FUNCTION shop."pgfanout_Order Items"() FROM PUBLIC;
REVOKE ALL ON FUNCTION shop.pgfanout_orders() FROM PUBLIC;
GRANT SELECT ON TABLE pgfanout.log TO pgfanout_upgrade_hub;
GRANT SELECT ON TABLE pgfanout.table_trigger TO pgfanout_upgrade_hub;
