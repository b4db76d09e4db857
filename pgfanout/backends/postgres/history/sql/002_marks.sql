-- Tracks deletions from the log, and numbers that are ahead of a wrong clock. Nothing here takes a lock that blocks readers
-- of the log, so an upgrade during a pg_dump stops no hub.

-- functions.sql replaces these functions.
CREATE FUNCTION @schema@._after_delete() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION @schema@._before_truncate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER after_delete AFTER DELETE ON @schema@.event
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION @schema@._after_delete();
CREATE TRIGGER before_truncate BEFORE TRUNCATE ON @schema@.event
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@._before_truncate();
ALTER TABLE @schema@.event ENABLE ALWAYS TRIGGER after_delete, ENABLE ALWAYS TRIGGER before_truncate;

-- Where pruning continues: no event before this number is left. It is a hint that each plan computes anew.
CREATE SEQUENCE @schema@.oldest;

CREATE TABLE @schema@.seen (
    at timestamptz NOT NULL,
    number bigint NOT NULL
);
COMMENT ON TABLE @schema@.seen IS 'while numbers are ahead of the clock: at that time, this was the last number';

ALTER DOMAIN @schema@.event_type ADD CONSTRAINT "types that begin with pgfanout. are reserved"
    CHECK (VALUE NOT LIKE 'pgfanout.%') NOT VALID;
