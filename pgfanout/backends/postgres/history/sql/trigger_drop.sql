-- Stops publishing the changes of a table. You may run this at any time.
--
-- Only the table is looked up in the caller's search path. Objects of others in that path would run with the caller's rights.
DO $do_@mark@$
DECLARE
    target pg_catalog.regclass := @target@;
    path pg_catalog.text := pg_catalog.current_setting('search_path');
    home pg_catalog.text;
    table_name pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT nspname, format('%I.%I', nspname, relname) INTO STRICT home, table_name
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = target::oid;
    EXECUTE format('DROP TRIGGER IF EXISTS %s ON %s', @on_insert_sql@, table_name);
    EXECUTE format('DROP TRIGGER IF EXISTS %s ON %s', @on_update_sql@, table_name);
    EXECUTE format('DROP TRIGGER IF EXISTS %s ON %s', @on_delete_sql@, table_name);
    EXECUTE format('DROP TRIGGER IF EXISTS %s ON %s', @on_columns_sql@, table_name);
    EXECUTE format('DROP FUNCTION IF EXISTS %I.%s()', home, @function_text@);
    PERFORM set_config('search_path', path, true);
END
$do_@mark@$;
