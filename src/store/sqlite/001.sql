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

-- One row for each exchange. Cost is in millionths of a unit of money.
CREATE TABLE record (
    at INTEGER NOT NULL,
    gateway TEXT NOT NULL,
    key TEXT NOT NULL,
    service TEXT NOT NULL,
    model TEXT NOT NULL,
    status INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    output INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    first_byte_us INTEGER,
    cost INTEGER
) STRICT;
CREATE INDEX record_at ON record (at);

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
