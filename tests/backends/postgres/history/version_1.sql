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
CREATE FUNCTION pgfanout.prune(batch integer DEFAULT 1000, every double precision DEFAULT 60) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    settings pgfanout.log;
    too_old bigint;
    too_many bigint;
    last bigint;
    gone integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock((-1210183745703330749)::bigint) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO settings FROM pgfanout.log;
    IF settings.planned_at < clock_timestamp() - every / 2 * interval '1 second' THEN
        too_old := floor(extract(epoch FROM clock_timestamp() - settings.max_age) * 1000000);
        SELECT count(*) INTO settings.rows FROM pgfanout.event;
        IF settings.rows > settings.max_rows THEN
            SELECT number INTO too_many FROM pgfanout.event ORDER BY number DESC OFFSET settings.max_rows LIMIT 1;
        END IF;
        settings.prune_to := greatest(settings.pruned_to, too_old, too_many);
        UPDATE pgfanout.log SET rows = settings.rows, prune_to = settings.prune_to, planned_at = clock_timestamp();
    END IF;
    WITH pruned AS (
        DELETE FROM pgfanout.event WHERE number IN (
            SELECT number FROM pgfanout.event WHERE number <= settings.prune_to ORDER BY number LIMIT batch
        ) RETURNING number
    )
    SELECT count(*), max(number) INTO gone, last FROM pruned;
    IF gone > 0 THEN
        UPDATE pgfanout.log SET pruned_to = last, rows = greatest(0, rows - gone);
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
    AS $$
#variable_conflict use_column
BEGIN
IF TG_OP = 'INSERT' THEN
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'items' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "ref", k2 AS "line") AS columns) AS key) AS event
    ) AS payload
    FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, "ref" AS k1, "line" AS k2 FROM new_rows WHERE "tenant" IS NOT NULL
    ) AS changes
    ORDER BY k1, k2, type
) AS events
HAVING count(*) > 0;
ELSIF TG_OP = 'DELETE' THEN
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'items' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "ref", k2 AS "line") AS columns) AS key) AS event
    ) AS payload
    FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, "ref" AS k1, "line" AS k2 FROM old_rows WHERE "tenant" IS NOT NULL
    ) AS changes
    ORDER BY k1, k2, type
) AS events
HAVING count(*) > 0;
ELSE
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'items' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "ref", k2 AS "line") AS columns) AS key) AS event
    ) AS payload
    FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1, k2
FROM (
SELECT (old_rows.*)::record AS image, "tenant"::uuid AS tenant, "ref" AS k1, "line" AS k2 FROM old_rows WHERE "tenant" IS NOT NULL
) AS before FULL JOIN (
SELECT (new_rows.*)::record AS image, "tenant"::uuid AS tenant, "ref" AS k1, "line" AS k2 FROM new_rows WHERE "tenant" IS NOT NULL
) AS after USING (tenant, k1, k2)
WHERE (before.image *= after.image) IS NOT TRUE
    ) AS changes
    ORDER BY k1, k2, type
) AS events
HAVING count(*) > 0;
END IF;
RETURN NULL;
END
$$;
ALTER FUNCTION shop."pgfanout_Order Items"() OWNER TO pgfanout_upgrade_owner;
CREATE FUNCTION shop.pgfanout_orders() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
IF TG_OP = 'INSERT' THEN
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'orders' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "id") AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
    ) AS payload
    FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, "id" AS k1, "id" AS p1, "status" AS p2 FROM new_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
    ) AS changes
    ORDER BY k1, type
) AS events
HAVING count(*) > 0;
ELSIF TG_OP = 'DELETE' THEN
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'orders' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "id") AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
    ) AS payload
    FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, "id" AS k1, "id" AS p1, "status" AS p2 FROM old_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
    ) AS changes
    ORDER BY k1, type
) AS events
HAVING count(*) > 0;
ELSE
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'orders' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "id") AS columns) AS key, (SELECT to_json(columns.*) FROM (SELECT p1 AS "id", p2 AS "status") AS columns) AS "row") AS event
    ) AS payload
    FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1, CASE WHEN after.tenant IS NULL THEN before.p1 ELSE after.p1 END AS p1, CASE WHEN after.tenant IS NULL THEN before.p2 ELSE after.p2 END AS p2
FROM (
SELECT ROW("status", "total") AS image, "tenant"::uuid AS tenant, "id" AS k1, "id" AS p1, "status" AS p2 FROM old_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS before FULL JOIN (
SELECT ROW("status", "total") AS image, "tenant"::uuid AS tenant, "id" AS k1, "id" AS p1, "status" AS p2 FROM new_rows WHERE "tenant" IS NOT NULL AND (
status <> 'draft'
)
) AS after USING (tenant, k1)
WHERE (before.image *= after.image) IS NOT TRUE
    ) AS changes
    ORDER BY k1, type
) AS events
HAVING count(*) > 0;
END IF;
RETURN NULL;
END
$$;
ALTER FUNCTION shop.pgfanout_orders() OWNER TO pgfanout_upgrade_owner;
CREATE FUNCTION shop.pgfanout_tags() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
IF TG_OP = 'INSERT' THEN
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'tags' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "name") AS columns) AS key) AS event
    ) AS payload
    FROM (
SELECT 'insert' AS type, "tenant"::uuid AS tenant, "name" AS k1 FROM new_rows WHERE "tenant" IS NOT NULL
    ) AS changes
    ORDER BY k1, type
) AS events
HAVING count(*) > 0;
ELSIF TG_OP = 'DELETE' THEN
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'tags' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "name") AS columns) AS key) AS event
    ) AS payload
    FROM (
SELECT 'delete' AS type, "tenant"::uuid AS tenant, "name" AS k1 FROM old_rows WHERE "tenant" IS NOT NULL
    ) AS changes
    ORDER BY k1, type
) AS events
HAVING count(*) > 0;
ELSE
PERFORM pgfanout.publish_many(array_agg(channel), array_agg(tenant), array_agg(payload), array_agg(type))
FROM (
    SELECT 'tags' AS channel, tenant, type, (
        SELECT to_json(event.*) FROM (SELECT type AS operation, (SELECT to_json(columns.*) FROM (SELECT k1 AS "name") AS columns) AS key) AS event
    ) AS payload
    FROM (
SELECT CASE WHEN before.tenant IS NULL THEN 'insert' WHEN after.tenant IS NULL THEN 'delete' ELSE 'update' END AS type, tenant, k1
FROM (
SELECT (old_rows.*)::record AS image, "tenant"::uuid AS tenant, "name" AS k1 FROM old_rows WHERE "tenant" IS NOT NULL
) AS before FULL JOIN (
SELECT (new_rows.*)::record AS image, "tenant"::uuid AS tenant, "name" AS k1 FROM new_rows WHERE "tenant" IS NOT NULL
) AS after USING (tenant, k1)
WHERE (before.image *= after.image) IS NOT TRUE
    ) AS changes
    ORDER BY k1, type
) AS events
HAVING count(*) > 0;
END IF;
RETURN NULL;
END
$$;
ALTER FUNCTION shop.pgfanout_tags() OWNER TO pgfanout_upgrade_owner;
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
INSERT INTO pgfanout.event VALUES (1796001537856261, 'orders', '11111111-1111-4111-8111-111111111111', 'first', 1, '0');
INSERT INTO pgfanout.event VALUES (1796001537860401, 'orders', '11111111-1111-4111-8111-111111111111', 'order.created', 24, '"a ''quoted'' \"text\" é"');
INSERT INTO pgfanout.event VALUES (1796001537863405, 'orders', '11111111-1111-4111-8111-111111111111', 'a', 1, '2');
INSERT INTO pgfanout.event VALUES (1796001537863406, 'stock', '11111111-1111-4111-8111-111111111111', 'b', 1, '3');
INSERT INTO pgfanout.event VALUES (1796001537865427, 'orders', '11111111-1111-4111-8111-111111111111', '', 9002, '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"');
INSERT INTO pgfanout.event VALUES (1796001537868035, 'orders', '11111111-1111-4111-8111-111111111111', 'insert', 67, '{"operation":"insert","key":{"id":1},"row":{"id":1,"status":"new"}}');
INSERT INTO pgfanout.event VALUES (1796001537873355, 'orders', '11111111-1111-4111-8111-111111111111', 'update', 68, '{"operation":"update","key":{"id":1},"row":{"id":1,"status":"paid"}}');
INSERT INTO pgfanout.event VALUES (1796001537873356, 'orders', '11111111-1111-4111-8111-111111111111', 'insert', 68, '{"operation":"insert","key":{"id":2},"row":{"id":2,"status":"paid"}}');
INSERT INTO pgfanout.event VALUES (1796001537880438, 'items', '11111111-1111-4111-8111-111111111111', 'insert', 84, '{"operation":"insert","key":{"ref":"11111111-1111-4111-8111-111111111111","line":1}}');
INSERT INTO pgfanout.event VALUES (1796001537883199, 'tags', '11111111-1111-4111-8111-111111111111', 'insert', 41, '{"operation":"insert","key":{"name":"a"}}');
INSERT INTO pgfanout.event VALUES (1796001537883200, 'tags', '11111111-1111-4111-8111-111111111111', 'insert', 41, '{"operation":"insert","key":{"name":"b"}}');
INSERT INTO pgfanout.log VALUES (true, 1, 'shop_events', '72000:00:00', 5000, 1048576, 1796001537854900, 1796001537854900, 1, '2026-11-30 01:18:57.859586+00');
INSERT INTO shop."Order Items" VALUES ('11111111-1111-4111-8111-111111111111', 1, '11111111-1111-4111-8111-111111111111');
INSERT INTO shop.orders VALUES (1, '11111111-1111-4111-8111-111111111111', 'paid', 9.5, NULL);
INSERT INTO shop.orders VALUES (2, '11111111-1111-4111-8111-111111111111', 'paid', 1, NULL);
INSERT INTO shop.tags VALUES ('a', '11111111-1111-4111-8111-111111111111');
INSERT INTO shop.tags VALUES ('b', '11111111-1111-4111-8111-111111111111');
SELECT pg_catalog.setval('pgfanout.number', 1796001537883200, true);
ALTER DOMAIN pgfanout.payload
    ADD CONSTRAINT "a payload has a limited size" CHECK ((octet_length((VALUE)::text) <= 1048576)) NOT VALID;
ALTER TABLE ONLY pgfanout.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (number);
ALTER TABLE ONLY pgfanout.log
    ADD CONSTRAINT log_pkey PRIMARY KEY (the_only);
ALTER TABLE ONLY shop."Order Items"
    ADD CONSTRAINT "Order Items_pkey" PRIMARY KEY (ref, line);
ALTER TABLE ONLY shop.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
CREATE INDEX event_topic ON pgfanout.event USING btree (tenant, channel, number);
CREATE CONSTRAINT TRIGGER at_commit AFTER DELETE ON pgfanout.pending DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._at_commit();
ALTER TABLE pgfanout.pending ENABLE ALWAYS TRIGGER at_commit;
CREATE CONSTRAINT TRIGGER at_commit AFTER DELETE ON pgfanout.pending_many DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._at_commit_of_many();
ALTER TABLE pgfanout.pending_many ENABLE ALWAYS TRIGGER at_commit;
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON pgfanout.pending DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._before_commit();
ALTER TABLE pgfanout.pending ENABLE ALWAYS TRIGGER before_commit;
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON pgfanout.pending_many DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgfanout._before_commit_of_many();
ALTER TABLE pgfanout.pending_many ENABLE ALWAYS TRIGGER before_commit;
CREATE TRIGGER pgfanout_delete AFTER DELETE ON shop."Order Items" REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION shop."pgfanout_Order Items"();
CREATE TRIGGER pgfanout_delete AFTER DELETE ON shop.orders REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_orders();
CREATE TRIGGER pgfanout_delete AFTER DELETE ON shop.tags REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_tags();
CREATE TRIGGER pgfanout_insert AFTER INSERT ON shop."Order Items" REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shop."pgfanout_Order Items"();
CREATE TRIGGER pgfanout_insert AFTER INSERT ON shop.orders REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_orders();
CREATE TRIGGER pgfanout_insert AFTER INSERT ON shop.tags REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_tags();
CREATE TRIGGER pgfanout_update AFTER UPDATE ON shop."Order Items" REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shop."pgfanout_Order Items"();
CREATE TRIGGER pgfanout_update AFTER UPDATE ON shop.orders REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_orders();
CREATE TRIGGER pgfanout_update AFTER UPDATE ON shop.tags REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION shop.pgfanout_tags();
GRANT USAGE ON SCHEMA pgfanout TO pgfanout_upgrade_owner;
GRANT USAGE ON SCHEMA pgfanout TO pgfanout_upgrade_web;
GRANT USAGE ON SCHEMA pgfanout TO pgfanout_upgrade_hub;
REVOKE ALL ON FUNCTION pgfanout._at_commit() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._at_commit_of_many() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._before_commit() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._before_commit_of_many() FROM PUBLIC;
REVOKE ALL ON FUNCTION pgfanout._draw(count integer) FROM PUBLIC;
GRANT SELECT ON TABLE pgfanout.event TO pgfanout_upgrade_hub;
REVOKE ALL ON FUNCTION pgfanout._notification(event pgfanout.event) FROM PUBLIC;
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
REVOKE ALL ON FUNCTION shop.pgfanout_tags() FROM PUBLIC;
GRANT SELECT ON TABLE pgfanout.log TO pgfanout_upgrade_hub;
