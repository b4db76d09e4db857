-- No events of the table's changes any more. It may be run at any time.
DO $do_@mark@$
DECLARE
    target regclass := @target@;
    path text := current_setting('search_path');
BEGIN
    PERFORM set_config(
        'search_path', (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = target) || ', pg_temp', true
    );
    DROP TRIGGER IF EXISTS @on_insert@ ON @bare_table@;
    DROP TRIGGER IF EXISTS @on_update@ ON @bare_table@;
    DROP TRIGGER IF EXISTS @on_delete@ ON @bare_table@;
    DROP TRIGGER IF EXISTS @on_columns@ ON @bare_table@;
    DROP FUNCTION IF EXISTS @function@();
    PERFORM set_config('search_path', path, true);
END
$do_@mark@$;
