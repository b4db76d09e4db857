-- A tenant is text: a UUID, a number or a name. The tables are rewritten, under locks that install.sql takes before.

-- It depends on the column. functions.sql makes it again.
DROP FUNCTION IF EXISTS @schema@._notification(@schema@.event);

-- Tenants are compared for equality alone. A collation of the operating system would make the index depend on its version.
ALTER TABLE @schema@.event ALTER tenant TYPE text COLLATE "C" USING tenant::text;
ALTER TABLE @schema@.pending ALTER tenant TYPE text;
ALTER TABLE @schema@.pending_many ALTER tenants TYPE text[];

DROP DOMAIN @schema@.tenant;
CREATE DOMAIN @schema@.tenant AS text
    CONSTRAINT "a tenant is needed" NOT NULL;

-- A sequence, since counting must not lock anything that another writer of the table could wait for.
CREATE SEQUENCE @schema@.passed_over MINVALUE 0 START 0;
SELECT setval('@schema@.passed_over', 0);
COMMENT ON SEQUENCE @schema@.passed_over IS 'rows that triggers of tables have not published, since they have no valid tenant';

-- functions.sql replaces these functions.
CREATE FUNCTION @schema@.publish(channel text, tenant text, payload text, type text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish(channel text, tenant text, payload json, type text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish(channel text, tenant text, payload jsonb, type text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish(channel text, tenant bigint, payload text, type text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish(channel text, tenant bigint, payload json, type text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish(channel text, tenant bigint, payload jsonb, type text DEFAULT '') RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish_many(channels text[], tenants text[], payloads json[], types text[] DEFAULT NULL) RETURNS void
    LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish_many(channels text[], tenants bigint[], payloads json[], types text[] DEFAULT NULL) RETURNS void
    LANGUAGE sql AS '';
CREATE FUNCTION @schema@.publish_many(channels text[], tenants text, payloads json[], types text[] DEFAULT NULL) RETURNS void
    LANGUAGE sql AS '';
CREATE FUNCTION @schema@._pass_over(count bigint) RETURNS void LANGUAGE sql AS '';

-- Existing publishers and readers get the rights on what is new.
DO $rights$
DECLARE
    role text;
BEGIN
    FOR role IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM pg_proc CROSS JOIN aclexplode(proacl)
        WHERE pg_proc.oid = to_regprocedure('@schema@.publish(text, uuid, text, text)')::oid AND privilege_type = 'EXECUTE'
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION @schema@.publish(text, text, text, text),'
            ' @schema@.publish(text, text, json, text), @schema@.publish(text, text, jsonb, text),'
            ' @schema@.publish(text, bigint, text, text), @schema@.publish(text, bigint, json, text),'
            ' @schema@.publish(text, bigint, jsonb, text) TO %s', role);
    END LOOP;
    FOR role IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM pg_proc CROSS JOIN aclexplode(proacl)
        WHERE pg_proc.oid = to_regprocedure('@schema@.publish_many(text[], uuid[], json[], text[])')::oid
            AND privilege_type = 'EXECUTE'
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION @schema@.publish_many(text[], text[], json[], text[]),'
            ' @schema@.publish_many(text[], bigint[], json[], text[]),'
            ' @schema@.publish_many(text[], text, json[], text[]), @schema@._pass_over(bigint) TO %s', role);
    END LOOP;
    FOR role IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END FROM pg_class CROSS JOIN aclexplode(relacl)
        WHERE pg_class.oid = '@schema@.log'::regclass AND privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT ON SEQUENCE @schema@.passed_over TO %s', role);
    END LOOP;
END
$rights$;
