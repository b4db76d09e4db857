-- The functions. `sql install` replaces them, and so does the first worker of a release with newer ones: a change here needs
-- a new REVISION in schema.py. They run with their owner's rights, so a publisher needs no rights on the tables. So they must
-- not look up anything in the caller's search path. Functions that every publishing transaction calls do not set their own
-- search path, since that takes a tenth of the time of a publish. They qualify all names and operators, or have looked them
-- up at creation (BEGIN ATOMIC: a step that changes a column of `event` has to drop these functions first).

ALTER DOMAIN @schema@.payload DROP CONSTRAINT IF EXISTS "a payload has a limited size";
ALTER DOMAIN @schema@.payload ADD CONSTRAINT "a payload has a limited size"
    CHECK (octet_length(VALUE::text) <= @max_payload@) NOT VALID;

ALTER DOMAIN @schema@.event_type DROP CONSTRAINT IF EXISTS "a type has at most 255 bytes";
ALTER DOMAIN @schema@.event_type ADD CONSTRAINT "a type has at most 255 bytes"
    CHECK (octet_length(VALUE) <= 255) NOT VALID;

-- Return the text of a tenant in its one form, or NULL if it is not valid: topic.py has the same rule. The first three
-- conditions are one regular expression for a UUID, which would take five times as long.
CREATE OR REPLACE FUNCTION @schema@._tenant_text(tenant text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE BEGIN ATOMIC
    SELECT CASE
        WHEN tenant LIKE '________-____-____-____-____________' AND octet_length(replace(tenant, '-', '')) = 32
            AND tenant !~ '[^0-9A-Fa-f-]' THEN lower(tenant)
        WHEN octet_length(tenant) BETWEEN 1 AND 63 AND tenant !~ '[\x01-\x1f\x7f-\x9f]' THEN tenant
    END;
END;

ALTER DOMAIN @schema@.tenant DROP CONSTRAINT IF EXISTS "a tenant has 1 to 63 bytes and no control characters";
ALTER DOMAIN @schema@.tenant ADD CONSTRAINT "a tenant has 1 to 63 bytes and no control characters"
    CHECK (@schema@._tenant_text(VALUE) IS NOT NULL) NOT VALID;

-- At the commit, this trigger queues a second one, so that the transaction's other deferred constraints run first. They may
-- wait for other transactions, and must not do so while the lock is held. No sequential scan: a vacuumed table looks so small
-- that PostgreSQL would scan it. That is slow with many events, and of two serializable transactions one would fail.
CREATE OR REPLACE FUNCTION @schema@._before_commit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET enable_seqscan = off AS $body$
BEGIN
    DELETE FROM @schema@.pending WHERE ctid OPERATOR(pg_catalog.=) NEW.ctid;
    RETURN NULL;
END
$body$;

-- Draw `count` consecutive numbers and return the first. No other transaction draws a number until this one has committed.
-- So the numbers are in the order of the commits, in which rows become visible and notifications are delivered.
-- (pg_sequence_last_value is what the view pg_sequences shows.)
CREATE OR REPLACE FUNCTION @schema@._draw(count integer) RETURNS bigint
LANGUAGE sql BEGIN ATOMIC
    SELECT CASE WHEN pg_advisory_xact_lock(@lock@) IS NOT NULL THEN setval(
        '@schema@.number', greatest(
            pg_sequence_last_value('@schema@.number') + 1, (date_part('epoch', clock_timestamp()) * 1000000)::bigint
        ) + count - 1
    ) - count + 1 END;
END;

-- The text that notifies an event. If the event may not fit, with an escaped channel and tenant and the largest number, the
-- payload and the type are left out, and the listeners read the row.
CREATE OR REPLACE FUNCTION @schema@._notification(event @schema@.event) RETURNS text
LANGUAGE sql BEGIN ATOMIC
    SELECT format(
        '{"channel":%s,"tenant_id":%s%s,"id":"%s"}', to_json(event.channel), to_json(event.tenant),
        CASE WHEN event.size + 6 * octet_length(event.type) <= 7999 - 329
        THEN ',"payload":' || event.payload || CASE WHEN event.type <> '' THEN ',"type":' || to_json(event.type) ELSE '' END
        END,
        event.number
    );
END;

-- The last action of a transaction. The statement that draws the number starts before it waits for the lock, so the lock is
-- held for little more than the insert. (Making the notification earlier and keeping it in `pending` gave 16 writers one
-- percent more transactions. It stored payloads twice, which made those of some KB cost a quarter more.)
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

-- The same for many events.
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

-- The text of a valid tenant is not NULL. The cast of any other one raises the error.
CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant text, payload text, type text DEFAULT '') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $body$
BEGIN
    INSERT INTO @schema@.pending (channel, tenant, type, payload) VALUES (
        channel::@schema@.channel, coalesce(@schema@._tenant_text(tenant), tenant::@schema@.tenant),
        coalesce(type, '')::@schema@.event_type, payload::@schema@.payload
    );
END
$body$;
COMMENT ON FUNCTION @schema@.publish(text, text, text, text) IS
    'publish one event when the transaction commits: channel, tenant, payload (JSON), type';

-- Overloads for tenants of the types uuid and bigint (which smaller integers become), and payloads of the types json and
-- jsonb. A quoted literal is text. Workers of earlier releases call those for a uuid.
CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant text, payload json, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant text, payload jsonb, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant uuid, payload text, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant::text, payload, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant uuid, payload json, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant::text, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant uuid, payload jsonb, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant::text, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant bigint, payload text, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant::text, payload, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant bigint, payload json, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant::text, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish(channel text, tenant bigint, payload jsonb, type text DEFAULT '') RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish(channel, tenant::text, payload::text, type) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish_many(
    channels text[], tenants text[], payloads json[], types text[] DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    INSERT INTO @schema@.pending_many (channels, tenants, types, payloads)
    SELECT array_agg(channel::@schema@.channel::text ORDER BY place),
        array_agg(coalesce(@schema@._tenant_text(tenant), tenant::@schema@.tenant) ORDER BY place),
        array_agg(coalesce(type, '')::@schema@.event_type::text ORDER BY place),
        array_agg(payload::@schema@.payload::json ORDER BY place)  -- a sort on disk keeps no order by itself
    FROM (
        SELECT channel, tenant, payload, type, place, (place - 1) / 1000 AS chunk
        FROM unnest(channels, tenants, payloads, types) WITH ORDINALITY AS e (channel, tenant, payload, type, place)
    ) AS events
    GROUP BY chunk ORDER BY chunk;
END
$body$;
COMMENT ON FUNCTION @schema@.publish_many(text[], text[], json[], text[]) IS
    'publish many events when the transaction commits, in their order';

-- Overloads as above. That with a text is for a quoted literal, which would fit each of the arrays.
CREATE OR REPLACE FUNCTION @schema@.publish_many(
    channels text[], tenants uuid[], payloads json[], types text[] DEFAULT NULL
) RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish_many(channels, tenants::text[], payloads, types) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish_many(
    channels text[], tenants bigint[], payloads json[], types text[] DEFAULT NULL
) RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish_many(channels, tenants::text[], payloads, types) $body$;

CREATE OR REPLACE FUNCTION @schema@.publish_many(
    channels text[], tenants text, payloads json[], types text[] DEFAULT NULL
) RETURNS void
LANGUAGE sql AS $body$ SELECT @schema@.publish_many(channels, tenants::text[], payloads, types) $body$;

-- Count rows that a table's trigger has not published.
CREATE OR REPLACE FUNCTION @schema@._pass_over(count bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM nextval('@schema@.passed_over') FROM generate_series(1, count);
END
$body$;

-- A deletion of events, by hand or by pruning, moves the mark. A reader before the mark may have missed one of them.
CREATE OR REPLACE FUNCTION @schema@._after_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    last bigint := max(number) FROM gone;
BEGIN
    UPDATE @schema@.log SET pruned_to = last WHERE pruned_to < last;
    RETURN NULL;
END
$body$;

-- No uncommitted event exists: its transaction would hold a lock that TRUNCATE has waited for. So the mark is the last event,
-- and a hub that has read all is not before it. An earlier snapshot may lack that event: then it is the last number drawn.
CREATE OR REPLACE FUNCTION @schema@._before_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    last bigint := pg_sequence_last_value('@schema@.number');
BEGIN
    IF current_setting('transaction_isolation') = 'read committed' THEN
        SELECT max(number) INTO last FROM @schema@.event;
    END IF;
    UPDATE @schema@.log SET pruned_to = greatest(pruned_to, last), rows = 0;
    RETURN NULL;
END
$body$;

-- Return the last number that is older than the given age. A number is the time of its commit, unless a clock was wrong:
-- numbers never decrease, so while they are ahead of the clock they are not times. Then the age of an event begins with the
-- first plan that finds it, or a later event, in the log.
CREATE OR REPLACE FUNCTION @schema@._too_old(age interval) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    now timestamptz := clock_timestamp();
    last bigint := pg_sequence_last_value('@schema@.number');
    too_old bigint := floor(extract(epoch FROM now - age) * 1000000);
BEGIN
    DELETE FROM @schema@.seen WHERE at > now;  -- by a clock that was wrong
    IF last > extract(epoch FROM now + interval '1 minute') * 1000000 THEN
        INSERT INTO @schema@.seen (at, number)
        SELECT now, last
        WHERE NOT EXISTS (SELECT FROM @schema@.seen WHERE at > now - age / 1000 OR number = last);
        too_old := greatest(too_old, (SELECT max(number) FROM @schema@.seen WHERE at <= clock_timestamp() - age));
        DELETE FROM @schema@.seen WHERE number < too_old;
    ELSE
        DELETE FROM @schema@.seen;
    END IF;
    RETURN too_old;
END
$body$;

-- Remove up to `batch` events that are too old or too many, and return how many. One session at a time prunes. Others get
-- NULL, and so does one that meets a deletion by hand. A plan of what to remove holds for half of `every` seconds. The
-- deletion has a lower bound: while an old snapshot is held, the index keeps the entries of deleted rows, and without the
-- bound each batch would read the entries of all earlier batches again.
CREATE OR REPLACE FUNCTION @schema@.prune(batch integer DEFAULT 1000, every double precision DEFAULT 60) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    settings @schema@.log;
    first bigint;
    too_many bigint;
    last bigint;
    gone integer;
BEGIN
    LOCK TABLE @schema@.event IN ROW EXCLUSIVE MODE;  -- before the row of `log`, as TRUNCATE and DELETE take them
    -- The row's lock keeps others from pruning. Unlike an advisory lock it requires rights, so no stranger can hold it.
    SELECT * INTO settings FROM @schema@.log FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        IF NOT EXISTS (SELECT FROM @schema@.log) THEN
            RAISE EXCEPTION 'the history in the schema @schema@ has lost its settings, the row of @schema@.log'
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Install it again, which repairs it.';
        END IF;
        RETURN NULL;
    END IF;
    IF settings.planned_at NOT BETWEEN clock_timestamp() - every / 2 * interval '1 second' AND clock_timestamp() THEN
        SELECT count(*), min(number) INTO settings.rows, first FROM @schema@.event;
        IF settings.rows > settings.max_rows THEN
            SELECT number INTO too_many FROM @schema@.event ORDER BY number DESC OFFSET settings.max_rows LIMIT 1;
        END IF;
        settings.prune_to := greatest(settings.pruned_to, @schema@._too_old(settings.max_age), too_many);
        UPDATE @schema@.log SET rows = settings.rows, prune_to = settings.prune_to, planned_at = clock_timestamp();
        PERFORM setval('@schema@.oldest', greatest(first, 1));
    END IF;
    SELECT last_value INTO first FROM @schema@.oldest;
    WITH pruned AS (
        DELETE FROM @schema@.event WHERE number IN (
            SELECT number FROM @schema@.event WHERE number BETWEEN first AND settings.prune_to
            ORDER BY number LIMIT batch FOR UPDATE SKIP LOCKED
        ) RETURNING number
    )
    SELECT count(*), max(number) INTO gone, last FROM pruned;
    IF gone > 0 THEN
        PERFORM setval('@schema@.oldest', last + 1);  -- an event that was skipped is found by the next plan
        UPDATE @schema@.log SET rows = greatest(0, rows - gone);
    END IF;
    RETURN gone;
END
$body$;
COMMENT ON FUNCTION @schema@.prune(integer, double precision) IS 'remove some of the events that are too old or too many';

-- What is installed. This works even if the log has lost its row, and with a snapshot from before the installation.
CREATE OR REPLACE FUNCTION @schema@._installed(OUT version integer, OUT revision integer)
LANGUAGE sql STABLE AS $body$ SELECT @version@, @revision@ $body$;

-- The JSON object in the only argument of a trigger, or NULL if it is something else.
CREATE OR REPLACE FUNCTION @schema@._options(argument bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    options jsonb;
BEGIN
    options := convert_from(substring(argument FROM 1 FOR octet_length(argument) - 1), getdatabaseencoding());
    RETURN CASE WHEN jsonb_typeof(options) = 'object' THEN options END;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$body$;

-- The tables whose changes are published. A trigger that never fires keeps the options in its argument, so they are dropped
-- and dumped with the table. `renamed` has the columns that have another name now. Only triggers that depend on the history
-- count: to make one requires rights on the history. Its argument may be anything that the table's owner has written.
CREATE OR REPLACE VIEW @schema@.table_trigger AS
SELECT watched,
    CASE WHEN options->>'revision' ~ '^[0-9]{1,9}$' THEN (options->>'revision')::integer END AS revision,
    options - '{revision,names}'::text[] AS options, (
    SELECT coalesce(jsonb_object_agg(name, attname), '{}')
    FROM unnest(columns) WITH ORDINALITY AS c (number, place)
    JOIN jsonb_array_elements_text(
        CASE WHEN jsonb_typeof(options->'names') = 'array' THEN options->'names' ELSE '[]' END
    ) WITH ORDINALITY AS n (name, place) USING (place)
    JOIN pg_attribute ON attrelid = watched AND attnum = number
    WHERE attname <> name
) AS renamed
FROM (
    SELECT tgrelid::regclass AS watched, tgattr AS columns, CASE WHEN tgnargs = 1 THEN @schema@._options(tgargs) END AS options
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE tgname = @columns_trigger@ AND NOT tgisinternal AND relpersistence <> 't' AND EXISTS (
        SELECT FROM pg_depend
        WHERE classid = 'pg_trigger'::regclass AND objid = pg_trigger.oid
            AND refclassid = 'pg_type'::regclass AND refobjid = '@schema@.event'::regtype
    )
) AS found;
COMMENT ON VIEW @schema@.table_trigger IS 'the tables that publish by themselves, and with which options';

-- One by one, since the schema may have functions of others.
REVOKE ALL ON FUNCTION
    @schema@._before_commit(),
    @schema@._at_commit(),
    @schema@._before_commit_of_many(),
    @schema@._at_commit_of_many(),
    @schema@._draw(integer),
    @schema@._notification(@schema@.event),
    @schema@._after_delete(),
    @schema@._before_truncate(),
    @schema@._too_old(interval),
    @schema@.publish(text, text, text, text),
    @schema@.publish(text, text, json, text),
    @schema@.publish(text, text, jsonb, text),
    @schema@.publish(text, uuid, text, text),
    @schema@.publish(text, uuid, json, text),
    @schema@.publish(text, uuid, jsonb, text),
    @schema@.publish(text, bigint, text, text),
    @schema@.publish(text, bigint, json, text),
    @schema@.publish(text, bigint, jsonb, text),
    @schema@.publish_many(text[], text[], json[], text[]),
    @schema@.publish_many(text[], uuid[], json[], text[]),
    @schema@.publish_many(text[], bigint[], json[], text[]),
    @schema@.publish_many(text[], text, json[], text[]),
    @schema@._pass_over(bigint),
    @schema@.prune(integer, double precision)
FROM PUBLIC;
