-- What is known of a log that somebody has emptied, or whose clock was wrong. Nothing here takes a lock that a reader of
-- the log waits for: an upgrade beside a pg_dump stops no hub.

-- What they do is in functions.sql.
CREATE FUNCTION @schema@._after_delete() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION @schema@._before_truncate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER after_delete AFTER DELETE ON @schema@.event
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION @schema@._after_delete();
CREATE TRIGGER before_truncate BEFORE TRUNCATE ON @schema@.event
    FOR EACH STATEMENT EXECUTE FUNCTION @schema@._before_truncate();
ALTER TABLE @schema@.event ENABLE ALWAYS TRIGGER after_delete, ENABLE ALWAYS TRIGGER before_truncate;

-- Where pruning goes on: no event before this number is left. It is a hint, found out anew with each plan.
CREATE SEQUENCE @schema@.oldest;

CREATE TABLE @schema@.seen (
    at timestamptz NOT NULL,
    number bigint NOT NULL
);
COMMENT ON TABLE @schema@.seen IS 'while numbers are ahead of the clock: at that time, this was the last number';

ALTER DOMAIN @schema@.event_type ADD CONSTRAINT "types that begin with pgfanout. are reserved"
    CHECK (VALUE NOT LIKE 'pgfanout.%') NOT VALID;
