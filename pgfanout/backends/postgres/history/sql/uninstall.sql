-- Drops the history: its events, its functions, and the triggers of tables that publish by themselves.
--
-- A trigger of these names may be another one of the table's owner, so a function is dropped only by its name, and only if
-- nothing else needs it.
DO $do$
DECLARE
    found record;
    path text := pg_catalog.current_setting('search_path');
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF to_regclass('@schema@.table_trigger') IS NOT NULL THEN
        FOR found IN
            SELECT tgrelid::regclass AS watched, tgname, tgfoid::regprocedure AS called,
                pronamespace = relnamespace AND starts_with(proname::text, '@schema@_') AS is_ours
            FROM @schema@.table_trigger
            JOIN pg_trigger ON tgrelid = watched JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON pg_proc.oid = tgfoid
            WHERE tgname IN (@triggers@)
        LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', found.tgname, found.watched);
            IF found.is_ours THEN
                BEGIN
                    EXECUTE format('DROP FUNCTION IF EXISTS %s', found.called);
                EXCEPTION WHEN dependent_objects_still_exist THEN
                    NULL;  -- the table's next trigger
                END;
            END IF;
        END LOOP;
    END IF;
    DROP SCHEMA IF EXISTS @schema@ CASCADE;
    PERFORM set_config('search_path', path, true);
END
$do$;
