-- Version 1. Times: `at` in milliseconds since 1970, `hour` and `period` in seconds since 1970. An empty text means none.

-- revision: how often resources were changed. records_from: records before this time (milliseconds) were deleted for their age.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0), ('records_from', 0);

CREATE TABLE resource (
    kind TEXT NOT NULL,
    gateway TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, gateway, name)
) STRICT, WITHOUT ROWID;

-- Exchanges, many in a row: those of one commit that began in the same hour. `first` and `last` are when the first and the last of them
-- began. `names` is a list of [gateway, key, service, model]; `records` is a list of [milliseconds after `base`, place in `names`, status,
-- input, cached, output, microseconds, microseconds to the first byte or null, cost or null, 1 if estimated]. The view `record` has them one by one.
CREATE TABLE batch (
    base INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    names TEXT NOT NULL,
    records TEXT NOT NULL
) STRICT;
CREATE INDEX batch_time ON batch (last, first);

-- One row for each exchange. Cost is in millionths of a unit of money. Whoever asks for a time asks faster with a condition on `batch_first`
-- and `batch_last`, too.
CREATE VIEW record AS
SELECT
    base + (value ->> 0) AS at,
    names -> (value ->> 1) ->> 0 AS gateway,
    names -> (value ->> 1) ->> 1 AS key,
    names -> (value ->> 1) ->> 2 AS service,
    names -> (value ->> 1) ->> 3 AS model,
    value ->> 2 AS status,
    value ->> 3 AS input,
    value ->> 4 AS cached,
    value ->> 5 AS output,
    value ->> 9 AS estimated,
    value ->> 6 AS duration_us,
    value ->> 7 AS first_byte_us,
    value ->> 8 AS cost,
    first AS batch_first,
    last AS batch_last
FROM batch, json_each(batch.records);

-- Sums of records.
CREATE TABLE rollup (
    hour INTEGER NOT NULL,
    gateway TEXT NOT NULL,
    key TEXT NOT NULL,
    service TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    PRIMARY KEY (hour, gateway, key, service, model)
) STRICT, WITHOUT ROWID;

-- The first and the last hour in which a key was used.
CREATE TABLE seen (
    gateway TEXT NOT NULL,
    key TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (gateway, key)
) STRICT, WITHOUT ROWID;

-- What budgets have counted.
CREATE TABLE counter (
    limit_id TEXT NOT NULL,
    who TEXT NOT NULL,
    period INTEGER NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (limit_id, who)
) STRICT, WITHOUT ROWID;
