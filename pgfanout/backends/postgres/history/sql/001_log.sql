-- The log, and how events get into it. docs/history.md says why it is built this way.

CREATE TABLE @schema@.log (
    the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
    version integer NOT NULL DEFAULT 0,
    postgres_channel text NOT NULL DEFAULT 'pgfanout_events',
    max_age interval NOT NULL DEFAULT '1 day',
    max_rows bigint NOT NULL DEFAULT 1000000,
    max_payload integer NOT NULL DEFAULT 1048576,
    pruned_to bigint NOT NULL,
    prune_to bigint NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    planned_at timestamptz NOT NULL DEFAULT 'epoch'
);
COMMENT ON COLUMN @schema@.log.pruned_to IS 'every event after this number is in the log';
COMMENT ON COLUMN @schema@.log.prune_to IS 'events up to this number are to go';
COMMENT ON COLUMN @schema@.log.rows IS 'how many events there were at planned_at';

CREATE TABLE @schema@.event (
    number bigint PRIMARY KEY,
    channel text NOT NULL,
    tenant uuid NOT NULL,
    type text NOT NULL,
    size integer NOT NULL,
    payload json NOT NULL
);
COMMENT ON COLUMN @schema@.event.size IS 'bytes of the payload: how much to read at once is found without reading it';
CREATE INDEX event_topic ON @schema@.event (tenant, channel, number);
COMMENT ON TABLE @schema@.event IS 'what was published, numbered in the order of the commits';

-- A number is at least the time of its commit, in microseconds since 1970. So no number is used twice, even after a crash,
-- a fail-over that lost commits, or in a log that was created anew. Numbers stay below 2^53 until the year 2255.
CREATE SEQUENCE @schema@.number;
INSERT INTO @schema@.log (pruned_to, prune_to)
SELECT number, number
FROM setval('@schema@.number', floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS number;

-- Events of transactions that are not committed yet: a row for each event, or for many that were published together.
-- Unlogged, since no such transaction survives a crash. Without an index, since a row is found by its ctid.
CREATE UNLOGGED TABLE @schema@.pending (
    channel text NOT NULL,
    tenant uuid NOT NULL,
    type text NOT NULL,
    payload json NOT NULL
);
CREATE UNLOGGED TABLE @schema@.pending_many (
    channels text[] NOT NULL,
    tenants uuid[] NOT NULL,
    types text[] NOT NULL,
    payloads json[] NOT NULL
);

-- functions.sql replaces these functions.
CREATE FUNCTION @schema@._before_commit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION @schema@._at_commit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION @schema@._before_commit_of_many() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION @schema@._at_commit_of_many() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON @schema@.pending
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION @schema@._before_commit();
CREATE CONSTRAINT TRIGGER at_commit AFTER DELETE ON @schema@.pending
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION @schema@._at_commit();
CREATE CONSTRAINT TRIGGER before_commit AFTER INSERT ON @schema@.pending_many
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION @schema@._before_commit_of_many();
CREATE CONSTRAINT TRIGGER at_commit AFTER DELETE ON @schema@.pending_many
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION @schema@._at_commit_of_many();
-- They also fire in a session that applies changes of another server. A NOTIFY is sent there, too.
ALTER TABLE @schema@.pending ENABLE ALWAYS TRIGGER before_commit, ENABLE ALWAYS TRIGGER at_commit;
ALTER TABLE @schema@.pending_many ENABLE ALWAYS TRIGGER before_commit, ENABLE ALWAYS TRIGGER at_commit;

CREATE DOMAIN @schema@.channel AS text
    CONSTRAINT "a channel has 1 to 63 bytes" CHECK (octet_length(VALUE) BETWEEN 1 AND 63)
    CONSTRAINT "a channel has no control characters" CHECK (VALUE !~ '[\x01-\x1f\x7f-\x9f]')
    CONSTRAINT "a channel is needed" NOT NULL;

CREATE DOMAIN @schema@.tenant AS uuid
    CONSTRAINT "a tenant is needed" NOT NULL;

CREATE DOMAIN @schema@.event_type AS text
    CONSTRAINT "a type is one line" CHECK (VALUE !~ '[\x0a\x0d]')
    CONSTRAINT "close and refresh are reserved" CHECK (VALUE NOT IN ('close', 'refresh'));

CREATE DOMAIN @schema@.payload AS json
    CONSTRAINT "a payload is needed" NOT NULL;
