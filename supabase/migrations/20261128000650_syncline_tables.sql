-- Registered tables: an entity type whose records are also rows of an ordinary table, with real columns (docs/postgres-tables.md).
--
-- `syncline.entities` stays the record for devices; the table is its projection. A field and its column agree if the field's value,
-- converted to the column's type, is the column's value (numbers: if they are the same number). Whatever makes them differ (a
-- default, a trigger, a type that rounds, somebody's own SQL) is noted as a direct write, and becomes a write of the server's.
--
-- What is done to a table is done by functions that are generated when it is registered, named after `id`. Nothing else is
-- dynamic: `syncline.table_*` choose among them by the entity type, and are generated anew with each registration.

create table syncline.registered_tables (
  entity_type   text collate "C" primary key check (entity_type ~ '^[a-z0-9_]{1,64}$'),
  id            int generated always as identity unique,
  relation      regclass not null unique,
  id_column     text not null,
  id_type       text not null,
  scope_column  text not null,
  clock_column  text,
  rest_column   text,
  -- field -> {"column", "type" as it is written, "json" what a value must be, "read_only", "default", "generated"}
  fields        jsonb not null,
  -- As it is written, `schema.name(jsonb,syncline.change[])`: upgrades of Postgres do not keep the type `regprocedure`.
  authorize     text,
  -- Higher than that of every registered table that a foreign key of this one points at: parents are written first.
  rank          int not null default 0
);

-- Rows that somebody else wrote, or that a write of ours left other than it was meant. Append-only: a writer never waits for
-- another one here, nor for a push. `fault` says why a row cannot be a record; it stays until the row changes again.
create table syncline.captures (
  scope       text collate "C" not null,
  id          bigint generated always as identity,
  entity_type text collate "C" not null,
  entity_id   text collate "C" not null,
  fault       text,
  primary key (scope, id)
);
create index captures_by_entity on syncline.captures (scope, entity_type, entity_id);
create index captures_waiting on syncline.captures (scope, entity_type, id) where fault is null;

-- What proves that a statement is ours: see `own_mark`.
create table syncline.capture_key (
  id  boolean primary key default true check (id),
  key bytea not null
);
insert into syncline.capture_key (key) values (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- The one form of policy that says no more than the scope check. Kept as a policy, so that it is compared as the server prints it.
create table syncline.scope_form (scope_of_row text);
create policy scope_form on syncline.scope_form
  using (scope_of_row = any ((select syncline.allowed_scopes())::text[]))
  with check (scope_of_row = any ((select syncline.allowed_scopes())::text[]));

alter table syncline.registered_tables enable row level security;
alter table syncline.captures          enable row level security;
alter table syncline.capture_key       enable row level security;
alter table syncline.scope_form        enable row level security;

-- What an `authorize` function is asked about: one operation and the row before and after it, as JSON by column; null for no row.
-- `new_row` is what the operation asks for, before defaults and triggers.
create type syncline.change as (operation text, entity_id text, old_row jsonb, new_row jsonb);

-- The statements by which we write rows are not captured. A setting alone could be made by anybody who wants a write to pass unnoticed;
-- this one holds a key that only the functions of this schema can read, bound to the transaction and the table, so what is seen
-- of it is of no use later. What triggers do meanwhile is not ours: it runs deeper, or, where a foreign key acts, on another table.
-- Our deletions are captured like anybody's, for what they may do to a table that refers to itself; they are found to be known.
create function syncline.own_mark(p_relation oid) returns text
language sql stable set search_path = '' as $$
  select encode(sha256(k.key || convert_to(concat_ws('/', pg_current_xact_id(), p_relation), 'UTF8')), 'hex') from syncline.capture_key k
$$;

create function syncline.is_own_write(p_relation oid) returns boolean
language plpgsql stable set search_path = '' as $$
declare
  v_mark constant text := coalesce(current_setting('syncline.applying', true), '');
begin
  return v_mark <> '' and pg_trigger_depth() = 1 and v_mark = syncline.own_mark(p_relation);
end
$$;

create function syncline.begin_own_writes(p_relation oid) returns void
language sql volatile set search_path = '' as $$ select set_config('syncline.applying', syncline.own_mark(p_relation), true) $$;

create function syncline.end_own_writes() returns void
language sql volatile set search_path = '' as $$ select set_config('syncline.applying', '', true) $$;

-- The fields in which a record and a row do not agree; null if there is none. `p_converted` is the record as the columns' types
-- would hold it; null if they cannot.
create function syncline.disagreeing(p_record jsonb, p_converted jsonb, p_row jsonb) returns text[]
language sql immutable set search_path = '' as $$
  select array_agg(k.name) from (select jsonb_object_keys(p_record) union select jsonb_object_keys(p_row)) as k(name)
  where p_record -> k.name is distinct from p_row -> k.name and not coalesce(syncline.same_value(p_record -> k.name, p_row -> k.name)
    or p_converted -> k.name = p_row -> k.name
      and not (jsonb_typeof(p_record -> k.name) = 'number' and jsonb_typeof(p_row -> k.name) = 'number'), false)
$$;

-- Why a row cannot be a record that devices understand; null if it can.
create function syncline.row_fault(p_entity_id text, p_record jsonb) returns text
language sql immutable set search_path = '' as $$
  select case
    when not coalesce(syncline.is_id(p_entity_id), false) then 'its id is not 1 to 128 characters without control characters'
    when octet_length(p_record::text) > 1048576 and syncline.compact_bytes(p_record) > 1048576 then 'it is larger than 1048576 bytes'
    when jsonb_path_exists(p_record, 'strict $.**{33}') then 'it is nested deeper than 32 levels'
    -- As in a payload: beyond 10^21 readers print an exponent, and nobody takes it for an exact integer.
    when jsonb_path_exists(p_record, 'strict $.** ? (@ >= 9007199254740991.5 && @ < 999999999999999934464
      || @ <= -9007199254740991.5 && @ > -999999999999999934464 || @ > 1.7976931348623158e308 || @ < -1.7976931348623158e308)')
    then 'it holds a number beyond 2^53 - 1' end
$$;

-- Whether an id has the one form in which a column of this type prints it.
create function syncline.is_key(p_type text, p_id text) returns boolean
language sql immutable set search_path = '' as $$
  select case p_type
    when 'uuid' then p_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    when 'bigint' then p_id ~ '^(0|-?[1-9][0-9]{0,17})$'
    when 'integer' then p_id ~ '^(0|-?[1-9][0-9]{0,8})$'
    else true end
$$;

-- The fields of a record that belong to columns, as a row's JSON by column; fields that are absent are null.
create function syncline.row_of(p_fields jsonb, p_record jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_object_agg(f.value ->> 'column', coalesce(p_record -> f.key, 'null')), '{}') from jsonb_each(p_fields) f
$$;

-- The fields that two records do not have in common, as the keys of an object.
create function syncline.changed_fields(p_old jsonb, p_new jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_object_agg(k.name, true), '{}')
  from (select jsonb_object_keys(p_old) union select jsonb_object_keys(p_new)) as k(name)
  where p_old -> k.name is distinct from p_new -> k.name
$$;
