-- Syncline's endpoint on Postgres: roles, the private schema, tables (docs/protocol.md, "What an endpoint must keep").
--
-- Every table that holds data of apps is keyed by scope first: the sharding key. Every statement on one names exactly one
-- scope. Nobody is granted a table: apps reach them through `public.syncline_push` and `public.syncline_pull` only. Row level
-- security is on as a second wall: should a table ever be granted by mistake, it still shows no row.
--
-- Needs PostgreSQL 15 or later and no extension. Texts that are keys have the collation "C": one order everywhere, that of
-- their bytes, as ties between devices are decided by it.

do $$
begin
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception 'Syncline needs a database with the encoding UTF8, this one has %', current_setting('server_encoding');
  end if;
end
$$;

-- What Supabase has and a plain Postgres has not. They are created without rights of their own and without a password.
do $$
declare
  v_role text;
begin
  foreach v_role in array array['anon', 'authenticated', 'service_role', 'syncline_server'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = v_role) then
      execute pg_catalog.format('create role %I nologin noinherit', v_role);
    end if;
  end loop;
  if not exists (select from pg_catalog.pg_roles where rolname = 'authenticator') then
    create role authenticator nologin noinherit;
    grant anon, authenticated, service_role to authenticator;
  end if;
end
$$;

create schema syncline;
comment on schema syncline is 'Syncline''s endpoint. Not to be exposed by an API.';
revoke all on schema syncline from public;

-- One row: what the operator may choose. Every limit is answered with a problem code of its own.
create table syncline.settings (
  id                   boolean primary key default true check (id),
  -- The claim that names the scope, as one text, or the allowed scopes, as an array of texts. A JSON pointer
  -- (`/app_metadata/teams`) reaches into nested claims. Null: the user's own id, `sub`.
  scope_claim          text,
  max_operations       int    not null default 500      check (max_operations between 1 and 10000),
  max_bytes            bigint not null default 8388608  check (max_bytes between 1024 and 268435456),
  max_payload_bytes    int    not null default 262144   check (max_payload_bytes between 2 and 262144),
  keys_kept_days       int    not null default 90       check (keys_kept_days >= 1),
  tombstones_kept_days int    not null default 180      check (tombstones_kept_days >= 1)
);
insert into syncline.settings default values;

-- Entity types with rules of their own; others take the app's wishes (docs/conflicts.md).
create table syncline.entity_types (
  entity_type   text collate "C" primary key check (entity_type ~ '^[a-z0-9_]{1,64}$'),
  conflict_rule text check (conflict_rule in ('last_writer_wins', 'server_wins', 'client_wins', 'manual')),
  delete_rule   text check (delete_rule in ('update_wins', 'delete_wins')),
  -- A JSON Schema for the whole record, of the keywords that `syncline.schema_error` knows.
  schema        jsonb
);

create table syncline.scopes (
  scope          text collate "C" primary key,
  head           bigint not null default 0 check (head between 0 and 9007199254740991),
  epoch          text   not null,
  purged_through bigint not null default 0 check (purged_through between 0 and head),
  -- The cluster and timeline that this history was written on: another one means that the server went back in time.
  cluster        text   not null
) with (fillfactor = 50);

create table syncline.devices (
  scope             text collate "C" not null,
  device_id         text collate "C" not null,
  user_id           text collate "C" not null,
  mark              bigint not null check (mark >= 0),
  forgotten_through bigint not null check (forgotten_through >= 0),
  primary key (scope, device_id)
) with (fillfactor = 50);

-- A write is [device id, sequence, milliseconds since 1970]. `fields`: name -> the write that last set it, removed ones too; a
-- field without an entry counts as set by `created`. A tombstone keeps its last payload, because a write that has not seen
-- the deletion may revive it. `clock`, `changed_at` and `bytes` follow from the others and save reading them.
create table syncline.entities (
  scope       text collate "C" not null,
  entity_type text collate "C" not null,
  entity_id   text collate "C" not null,
  version     bigint  not null check (version > 0),
  payload     jsonb   not null,
  fields      jsonb   not null,
  created     jsonb   not null,
  deleted     jsonb,
  clock       jsonb   not null,
  changed_at  bigint  not null,
  bytes       int     not null,
  stored_at   bigint  not null,
  primary key (scope, entity_type, entity_id)
)
-- Not vacuumed and analysed while it is small: statistics of a few rows make every index look alike, and plans outlive them.
with (autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 1000);
create unique index entities_by_version on syncline.entities (scope, version);
create index tombstones_by_age on syncline.entities (scope, stored_at) where deleted is not null;

-- Idempotency keys and their final verdicts.
create table syncline.operations (
  scope           text collate "C" not null,
  idempotency_key text collate "C" not null,
  operation_id    text collate "C" not null,
  device_id       text collate "C" not null,
  sequence        bigint not null check (sequence > 0),
  operation       text   not null check (operation in ('create', 'update', 'delete')),
  entity_type     text collate "C" not null,
  entity_id       text collate "C" not null,
  content_hash    bytea  not null check (length(content_hash) = 32),
  verdict         text   not null check (verdict in ('applied', 'merged', 'conflict', 'rejected')),
  error           jsonb,
  conflict_id     text collate "C",
  decided_at      bigint not null,
  primary key (scope, idempotency_key),
  check ((verdict = 'rejected') = (error is not null))
) with (autovacuum_vacuum_threshold = 1000, autovacuum_analyze_threshold = 1000);
create unique index applied_operations on syncline.operations (scope, device_id, sequence) where verdict in ('applied', 'merged');
create index operations_by_age on syncline.operations (scope, decided_at);

-- The ledger. `conflict` is the object of the wire.
create table syncline.conflicts (
  scope        text collate "C" not null,
  id           text collate "C" not null,
  operation_id text collate "C" not null,
  entity_type  text collate "C" not null,
  entity_id    text collate "C" not null,
  rule         text   not null,
  result       text   not null check (result in ('merged', 'conflict')),
  decided_at   bigint not null,
  conflict     jsonb  not null,
  primary key (scope, id)
);
create index conflicts_by_entity on syncline.conflicts (scope, entity_type, entity_id);

-- Who may work in which scope, where `syncline.allowed_scopes` is the one that asks this table (see the migration on claims).
create table syncline.members (
  scope   text collate "C" not null,
  user_id text collate "C" not null,
  primary key (scope, user_id)
);
create index members_by_user on syncline.members (user_id);

alter table syncline.settings     enable row level security;
alter table syncline.entity_types enable row level security;
alter table syncline.scopes       enable row level security;
alter table syncline.devices      enable row level security;
alter table syncline.entities     enable row level security;
alter table syncline.operations   enable row level security;
alter table syncline.conflicts    enable row level security;
alter table syncline.members      enable row level security;
