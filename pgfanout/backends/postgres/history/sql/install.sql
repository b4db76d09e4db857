-- The history of pgfanout, version @version@. You may run this at any time, even twice at once: it does what is missing.
--
-- It is one statement, so it is done as a whole or not at all, whether psql, a migration tool or the library runs it. It
-- uses no object that others have put into a schema of the search path.
--
-- The catalogs show whether a table or a function exists now. The row of the log is read with the transaction's
-- snapshot, which under REPEATABLE READ may be older than an installation that has just ended. So the row is locked before
-- anything changes, and PostgreSQL refuses an old snapshot with 40001 (serialization_failure).
DO $pgfanout$
DECLARE
    installed pg_catalog.record;
    current integer;
    notified pg_catalog.text;
    has_row boolean;
    is_there boolean;
    is_locked boolean := false;
    settings pg_catalog.record;
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    backslashes pg_catalog.text := pg_catalog.current_setting('standard_conforming_strings');
    patience pg_catalog.text := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM set_config('standard_conforming_strings', 'on', true);
    -- Look once without a lock, since there may be nothing to do, and then with one. The first look is a query. The session
    -- would cache the result of to_regclass, and miss an installation that it then waits for.
    is_there := EXISTS (
        SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE nspname = '@schema@' AND relname = 'log'
    );
    LOOP
        SELECT 0 AS version, 0 AS revision INTO installed;
        has_row := false;
        IF is_there THEN
            installed.version := 1;  -- the only version without that function
            IF to_regprocedure('@schema@._installed()') IS NOT NULL THEN
                SELECT i.version, i.revision INTO STRICT installed FROM @schema@._installed() AS i;
            END IF;
            SELECT version, postgres_channel INTO current, notified FROM @schema@.log;
            has_row := FOUND;
            installed.version := coalesce(current, installed.version);
        END IF;
        EXIT WHEN is_locked
            OR has_row AND @only_looks@ AND installed.version >= @version@ AND installed.revision >= @revision@;
        -- Any role may hold an advisory lock for ever. So only a first installation takes one, with a time-out. Later
        -- ones lock the table, which requires rights on it.
        IF NOT is_there THEN
            IF patience = '0' THEN
                PERFORM set_config('lock_timeout', '@patience@', true);
            END IF;
            BEGIN
                PERFORM pg_advisory_xact_lock(@lock@);
            EXCEPTION WHEN lock_not_available THEN
                RAISE EXCEPTION
                    'another session holds the advisory lock of the first installation into the schema @schema@'
                    USING ERRCODE = 'lock_not_available', HINT = 'Wait for an installation that is under way, or end'
                        ' that session, which SELECT pid FROM pg_locks WHERE locktype = ''advisory'' shows.'
                        ' Then run it again.';
            END;
            PERFORM set_config('lock_timeout', patience, true);
        END IF;
        is_there := to_regclass('@schema@.log') IS NOT NULL;
        IF is_there THEN
            LOCK TABLE @schema@.log IN SHARE UPDATE EXCLUSIVE MODE;
        END IF;
        is_locked := true;
    END LOOP;
    IF to_regnamespace('@schema@') IS NULL THEN
        CREATE SCHEMA @schema@;
    END IF;
IF has_row AND @spare@ AND installed.version >= @version@ AND installed.revision >= @revision@ THEN
    IF installed.version > @version@ OR installed.revision > @revision@ THEN
        RAISE DEBUG 'the history in the schema @schema@ is of a newer pgfanout, and is left alone';
    ELSE
        NULL;
@grants@    END IF;
ELSE
    IF installed.version > @version@ THEN
        RAISE EXCEPTION 'the history in the schema @schema@ is of version %, this is version @version@',
            installed.version USING HINT = 'Use the newer pgfanout.';
    ELSIF installed.revision > @revision@ THEN
        RAISE EXCEPTION
            'the history in the schema @schema@ has functions of revision %, these are of revision @revision@',
            installed.revision USING HINT = 'Use the newer pgfanout.';
    END IF;
    IF installed.version > 0 AND NOT has_row
        AND NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('@schema@.log'))
    THEN
        RAISE EXCEPTION 'the history was installed after this transaction had begun'
            USING ERRCODE = 'serialization_failure', HINT = 'Run it again, in a new transaction.';
    END IF;
    -- Step 3 rewrites tables, so nobody else may use them. While the lock is waited for, nobody publishes, and no hub reads.
    -- So each attempt is short, and in the pause those that came go first. An attempt ends before PostgreSQL would look for
    -- a deadlock (deadlock_timeout): a transaction that holds one of these tables and waits for another is not cancelled.
    IF installed.version BETWEEN 1 AND 2 THEN
        PERFORM set_config('lock_timeout', '300ms', true);
        FOR attempt IN 1 .. @attempts@ LOOP
            BEGIN
                LOCK TABLE @schema@.pending, @schema@.pending_many, @schema@.event IN ACCESS EXCLUSIVE MODE;
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                IF attempt = @attempts@ THEN
                    RAISE EXCEPTION 'the history in the schema @schema@ is in use all the time, so it can''t be upgraded to'
                        ' version @version@' USING ERRCODE = 'lock_not_available', HINT = 'A long transaction has published'
                        ' or reads it, such as pg_dump: pg_locks shows which. Run this again when that has ended.';
                END IF;
                PERFORM pg_sleep(0.7);
            END;
        END LOOP;
        PERFORM set_config('lock_timeout', patience, true);
    END IF;
    -- Locks in the order that publishing, pruning and deleting take them: pending, event, log.
    IF installed.version > 0 AND NOT has_row
        OR has_row AND NOT @spare@ AND @channel@ <> notified
    THEN
        -- Wait for transactions that have published: they notify the old channel, or end before the log begins anew. A
        -- transaction that publishes meanwhile waits, and then uses the new channel or log.
        LOCK TABLE @schema@.pending, @schema@.pending_many IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    IF installed.version BETWEEN 1 AND @version@ - 1 THEN
        LOCK TABLE @schema@.event IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    IF has_row THEN
        PERFORM FROM @schema@.log FOR UPDATE;
    ELSIF installed.version > 0 THEN
        -- The row is gone, after a dump of the schema alone or a TRUNCATE. Nobody knows which events are missing. So the log
        -- begins anew, with a number above all earlier ones.
        INSERT INTO @schema@.log (version, pruned_to, prune_to) SELECT installed.version, number, number
        FROM setval('@schema@.number', greatest(
            pg_sequence_last_value('@schema@.number') + 1, (SELECT max(number) + 1 FROM @schema@.event),
            floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        )) AS number
        ON CONFLICT DO NOTHING;
        DELETE FROM @schema@.event;
    END IF;
@steps@
    UPDATE @schema@.log SET version = @version@;
    IF NOT has_row OR NOT @spare@ THEN
        UPDATE @schema@.log SET @settings@;
    END IF;
    SELECT * INTO STRICT settings FROM @schema@.log;
EXECUTE replace(replace($functions$
@functions@$functions$,
        '@max_payload@', settings.max_payload::text), '@postgres_channel@', quote_literal(settings.postgres_channel));
@grants@END IF;
    PERFORM set_config('standard_conforming_strings', backslashes, true);
    PERFORM set_config('search_path', path, true);
END
$pgfanout$;
