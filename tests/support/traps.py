"""Functions, operators and types that a hostile role has put into a schema: each raises when anything uses it."""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from psycopg import sql

__all__ = ["set_traps"]

_CALLED = re.compile(r"(?<![\w.@])([a-z_]+)\s*\(")
_QUALIFIED = re.compile(r"pg_catalog\.([a-z_]+)\s*\(")

# Those of pg_catalog under the same names and types, which win where the schema comes before pg_catalog in a path; and
# those of types for which pg_catalog has nothing exact, which win behind it, too.
_SET: Final = """
DO $do$
DECLARE
    each pg_catalog.text;
BEGIN
    FOR each IN
        SELECT format(
            'CREATE FUNCTION {place}.%I(%s) RETURNS %s LANGUAGE plpgsql AS'
            ' $$ BEGIN RAISE EXCEPTION ''trapped: %s''; END $$',
            proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid), proname
        ) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY ({names}) AND prokind = 'f'
        UNION ALL SELECT format(
            'CREATE FUNCTION {place}.format(%s) RETURNS text LANGUAGE plpgsql AS'
            ' $$ BEGIN RAISE EXCEPTION ''trapped: format''; END $$',
            array_to_string(array_fill('text'::text, ARRAY[n]), ',')
        ) FROM generate_series(2, 5) AS n
        UNION ALL SELECT format(
            'CREATE FUNCTION {place}.to_jsonb(%s) RETURNS jsonb LANGUAGE plpgsql AS'
            ' $$ BEGIN RAISE EXCEPTION ''trapped: to_jsonb''; END $$', type
        ) FROM unnest(ARRAY['text[]', 'integer']) AS type
        UNION ALL SELECT format(
            'CREATE FUNCTION {place}.operator_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS'
            ' $$ BEGIN RAISE EXCEPTION ''trapped: %s of %s and %s''; END $$',
            number, left_type, right_type, result, operator, left_type, right_type
        ) FROM pg_temp.trapped_operator
        UNION ALL SELECT format(
            'CREATE OPERATOR {place}.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = {place}.operator_%s)',
            operator, left_type, right_type, number
        ) FROM pg_temp.trapped_operator
        UNION ALL SELECT format(
            'CREATE FUNCTION {place}.checked(%s) RETURNS boolean LANGUAGE plpgsql AS'
            ' $$ BEGIN RAISE EXCEPTION ''trapped: the type %s''; END $$', type, type
        ) FROM unnest(ARRAY['text', 'oid', 'regclass', 'jsonb']) AS type
        UNION ALL SELECT format('CREATE DOMAIN {place}.%s AS %s CHECK ({place}.checked(VALUE))', type, full_name)
        FROM unnest(ARRAY['pg_catalog.text', 'pg_catalog.oid', 'pg_catalog.regclass', 'pg_catalog.jsonb']) AS full_name,
            substring(full_name FROM 12) AS type
    LOOP
        BEGIN
            EXECUTE each;
        EXCEPTION WHEN invalid_function_definition OR duplicate_function OR feature_not_supported THEN
            NULL;  -- an argument of the type "any", which no function in plpgsql has
        END;
    END LOOP;
END
$do$
"""
_OPERATORS: Final = """
CREATE TEMP TABLE trapped_operator AS
SELECT row_number() OVER () AS number, * FROM (
    SELECT oprname::text AS operator, format_type(oprleft, NULL) AS left_type,
        format_type(oprright, NULL) AS right_type, format_type(oprresult, NULL) AS result
    FROM pg_operator WHERE oprname IN ('=', '<>', '||', '>', '->', '+', '-', '*') AND oprleft <> 0
        AND oprleft NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p')
        AND oprright NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p')
    UNION SELECT operator, l, r, 'boolean'
    FROM unnest(ARRAY['=', '<>']) AS operator,
        unnest(ARRAY['oid', 'regclass', 'regprocedure', 'regnamespace', 'regtype', 'regrole']) AS l,
        unnest(ARRAY['oid', 'regclass', 'regprocedure', 'regnamespace', 'regtype', 'regrole']) AS r
    WHERE (l, r) <> ('oid', 'oid')
    UNION SELECT '||', l, 'text', 'text' FROM unnest(ARRAY['regnamespace', 'regclass', 'name']) AS l
) AS operators
"""


def set_traps(connection: psycopg.Connection[Any], place: str, script: str) -> None:
    """Set a trap in the schema for everything that a script may use. The session's path has to be a harmless one."""
    names = sorted({*_CALLED.findall(script), *_QUALIFIED.findall(script)})
    connection.execute(_OPERATORS.encode())
    values = sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(map(sql.Literal, names)))
    # Not by `format`: the statement is full of its own formats.
    text = _SET.replace("{names}", values.as_string(None)).replace("{place}", place)
    psycopg.ClientCursor(connection).execute(text.encode())
    connection.execute("DROP TABLE pg_temp.trapped_operator")
