-- The functions, replaced at each installation. They run with their owner's rights: a publisher needs none on the tables.
-- So nothing in them may be found by the caller's search path. Those that each transaction with an event calls have none of
-- their own, since to set it is a tenth of what publishing costs: names, operators included, are qualified in them, or
-- were looked up when the function was made (BEGIN ATOMIC; a step that changes a column of `event` has to drop these first).

ALTER DOMAIN @schema@.payload DROP CONSTRAINT IF EXISTS "a payload has a limited size";
ALTER DOMAIN @schema@.payload ADD CONSTRAINT "a payload has a limited size"
    CHECK (octet_length(VALUE::text) <= @max_payload@) NOT VALID;

ALTER DOMAIN @schema@.event_type DROP CONSTRAINT IF EXISTS "types that begin with pgfanout. are reserved";
ALTER DOMAIN @schema@.event_type ADD CONSTRAINT "types that begin with pgfanout. are reserved"
    CHECK (left(VALUE, 9) <> 'pgfanout.') NOT VALID;

-- At the commit, each statement's events wait once more, for the transaction's other deferred constraints: what those wait
-- for must not be waited for with the lock held. A table that was vacuumed looks so small that PostgreSQL would plan to read
-- all of it: slow where a transaction has many events, and of two that are serializable one would fail.
CREATE OR REPLACE FUNCTION @schema@._before_commit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET enable_seqscan = off AS $body$
BEGIN
    DELETE FROM @schema@.pending WHERE ctid OPERATOR(pg_catalog.=) NEW.ctid;
    RETURN NULL;
END
$body$;

-- Draw as many numbers as given, one after the other, and return the first. From here until the transaction has committed
-- nobody else draws one, so the order of the numbers is that of the commits, in which rows become visible and
-- notifications are delivered. (pg_sequence_last_value is what the view pg_sequences shows.)
CREATE OR REPLACE FUNCTION @schema@._draw(count integer) RETURNS bigint
LANGUAGE sql BEGIN ATOMIC
    SELECT CASE WHEN pg_advisory_xact_lock(@lock@) IS NOT NULL THEN setval(
        '@schema@.number', greatest(
            pg_sequence_last_value('@schema@.number') + 1, (date_part('epoch', clock_timestamp()) * 1000000)::bigint
        ) + count - 1
    ) - count + 1 END;
END;

-- What is notified of an event. One that may not fit, with a channel that is escaped and the largest of numbers, goes
-- without what may be large: who listens reads the row.
CREATE OR REPLACE FUNCTION @schema@._notification(event @schema@.event) RETURNS text
LANGUAGE sql BEGIN ATOMIC
    SELECT format(
        '{"channel":%s,"tenant_id":"%s"%s,"id":"%s"}', to_json(event.channel), event.tenant,
        CASE WHEN event.size + 6 * octet_length(event.type) <= 7999 - 239
        THEN ',"payload":' || event.payload || CASE WHEN event.type <> '' THEN ',"type":' || to_json(event.type) ELSE '' END
        END,
        event.number
    );
END;

-- The last that a transaction does. The statement that draws has begun before it waits for the lock, which is held for
-- little more than the writing. (With a notification made beforehand and kept in `pending`, 16 writers had a hundredth more
-- transactions, and payloads of some KB, which were then stored twice, cost a quarter more.)
CREATE OR REPLACE FUNCTION @schema@._at_commit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $body$
DECLARE
    done pg_catalog.text;
BEGIN
    INSERT INTO @schema@.event AS written (number, channel, tenant, type, size, payload) VALUES (
        @schema@._draw(1), OLD.channel, OLD.tenant, OLD.type,
        pg_catalog.octet_length(OLD.payload::pg_catalog.text), OLD.payload
    ) RETURNING pg_catalog.pg_notify(@postgres_channel@, @schema@._notification(written)) INTO done;
    RETURN NULL;
END
$body$;

-- The same of many.
CREATE OR REPLACE FUNCTION @schema@._before_commit_of_many() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $body$
BEGIN
    DELETE FROM @schema@.pending_many WHERE ctid = NEW.ctid;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION @schema@._at_commit_of_many() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    done bigint;
BEGIN
    WITH drawn AS MATERIALIZED (
        SELECT @schema@._draw(cardinality(OLD.channels)) AS first
    ), written AS (
        INSERT INTO @schema@.event AS written (number, channel, tenant, type, size, payload)
        SELECT first + place - 1, channel, tenant, type, octet_length(payload::text), payload
        FROM drawn, unnest(OLD.channels, OLD.tenants, OLD.types, OLD.payloads)
            WITH ORDINALITY AS e (channel, tenant, type, payload, place)
        RETURNING pg_notify(@postgres_channel@, @schema@._notification(written))
    )
    SELECT count(*) INTO done FROM written;
    RETURN NULL;
END
$body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant uuid, payload text, type text DEFAULT '') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $body$
BEGIN
    INSERT INTO @schema@.pending (channel, tenant, type, payload) VALUES (
        channel::@schema@.channel, tenant::@schema@.tenant, coalesce(type, '')::@schema@.event_type, payload::@schema@.payload
    );
END
$body$;
COMMENT ON FUNCTION @schema@.publish(text, uuid, text, text) IS
    'publish one event when the transaction commits: channel, tenant, payload (JSON), type';

-- So that a payload of either type can be given; what is quoted is text.
CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant uuid, payload json, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant uuid, payload jsonb, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish_many(
    channels text[], tenants uuid[], payloads json[], types text[] DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    INSERT INTO @schema@.pending_many (channels, tenants, types, payloads)
    SELECT array_agg(channel::@schema@.channel::text ORDER BY place), array_agg(tenant::@schema@.tenant::uuid ORDER BY place),
        array_agg(coalesce(type, '')::@schema@.event_type::text ORDER BY place),
        array_agg(payload::@schema@.payload::json ORDER BY place)  -- a sort on disk keeps no order by itself
    FROM (
        SELECT channel, tenant, payload, type, place, (place - 1) / 1000 AS chunk
        FROM unnest(channels, tenants, payloads, types) WITH ORDINALITY AS e (channel, tenant, payload, type, place)
    ) AS events
    GROUP BY chunk ORDER BY chunk;
END
$body$;
COMMENT ON FUNCTION @schema@.publish_many(text[], uuid[], json[], text[]) IS
    'publish many events when the transaction commits, in their order';

-- Remove some of the events that are too old or too many, and tell how many that were. One session at a time does;
-- others get NULL. It finds out what may go at most once in half of the seconds that are given.
CREATE OR REPLACE FUNCTION @schema@.prune(batch integer DEFAULT 1000, every double precision DEFAULT 60) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    settings @schema@.log;
    too_old bigint;
    too_many bigint;
    last bigint;
    gone integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(@prune_lock@) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO settings FROM @schema@.log;
    IF settings.planned_at < clock_timestamp() - every / 2 * interval '1 second' THEN
        too_old := floor(extract(epoch FROM clock_timestamp() - settings.max_age) * 1000000);
        SELECT count(*) INTO settings.rows FROM @schema@.event;
        IF settings.rows > settings.max_rows THEN
            SELECT number INTO too_many FROM @schema@.event ORDER BY number DESC OFFSET settings.max_rows LIMIT 1;
        END IF;
        settings.prune_to := greatest(settings.pruned_to, too_old, too_many);
        UPDATE @schema@.log SET rows = settings.rows, prune_to = settings.prune_to, planned_at = clock_timestamp();
    END IF;
    WITH pruned AS (
        DELETE FROM @schema@.event WHERE number IN (
            SELECT number FROM @schema@.event WHERE number <= settings.prune_to ORDER BY number LIMIT batch
        ) RETURNING number
    )
    SELECT count(*), max(number) INTO gone, last FROM pruned;
    IF gone > 0 THEN
        UPDATE @schema@.log SET pruned_to = last, rows = greatest(0, rows - gone);
    END IF;
    RETURN gone;
END
$body$;
COMMENT ON FUNCTION @schema@.prune(integer, double precision) IS 'remove some of the events that are too old or too many';

-- By their names: the schema may have functions of others.
REVOKE ALL ON FUNCTION
    @schema@._before_commit(),
    @schema@._at_commit(),
    @schema@._before_commit_of_many(),
    @schema@._at_commit_of_many(),
    @schema@._draw(integer),
    @schema@._notification(@schema@.event),
    @schema@.publish(text, uuid, text, text),
    @schema@.publish(text, uuid, json, text),
    @schema@.publish(text, uuid, jsonb, text),
    @schema@.publish_many(text[], uuid[], json[], text[]),
    @schema@.prune(integer, double precision)
FROM PUBLIC;
