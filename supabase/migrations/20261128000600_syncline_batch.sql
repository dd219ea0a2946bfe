-- A push in memory: what it touches, fetched by one statement, and the operations that no rule of conflicts can touch, judged by
-- another one. The whole of it is told in the migration on push.

create type syncline.known as (
  hash bytea, verdict text, device_id text, sequence bigint, error jsonb, conflict jsonb
);

create type syncline.outcome as (
  status text, first text, device_id text, sequence bigint, error jsonb, conflict jsonb, is_new boolean
);

create type syncline.decided as (
  outcome syncline.outcome, state syncline.state
);

-- A push in the making. Arrays are indexed by an operation's place; those of entities by the place of its first operation.
create type syncline.batch as (
  operations syncline.operation[], known syncline.known[], before syncline.state[], states syncline.state[],
  plain boolean[], outcomes syncline.outcome[], changed boolean[], forked boolean,
  newest bigint,                   -- the highest version that a record had before; null if there was none
  after syncline.state[]           -- what each operation that is not plain leaves of its record
);

-- Fetches what the operations touch, and marks the plain ones: one index lookup by the whole key for each operation and table, whatever
-- the statistics say. They cannot be trusted: a plan outlives what it was made for, a new table, or many scopes with little in them,
-- for which an index that begins with the scope is as good as another. So a lookup asks for the first row from the key on, in the
-- key's order, which only its own index has while sorts are off; whether it is the row looked for is seen afterwards.
create function syncline.load(r syncline.request, p_operations syncline.operation[], p_forgotten_through bigint) returns syncline.batch
language plpgsql stable set search_path = '' set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
declare
  b syncline.batch;
begin
  b.operations := p_operations;
  select
    array_agg(t.known order by t.n), array_agg(t.before order by t.n), array_agg(t.plain order by t.n),
    coalesce(bool_or(t.forked), false), max((t.before).version)
    into b.known, b.before, b.plain, b.forked, b.newest
  from (
    select o.n,
      case when k.verdict is not null then
        row(k.content_hash, k.verdict, k.device_id, k.sequence, k.error, c.conflict)::syncline.known end as known,
      case when e.version is not null then
        row(e.version, e.payload, e.fields, e.created, e.deleted, e.clock, e.changed_at, e.bytes)::syncline.state end as before,
      o.alone and k.verdict is null and not o.void and o.fault is null and y.schema is null and case
        when e.version is null then o.kind <> 'update'
        else e.deleted is null and (o.base @> e.clock or syncline.covers_clock(o.base, e.clock))
          and e.bytes + o.bytes < 1000000
        end as plain,
      k.verdict is null and not o.void and (
        o.sequence <= p_forgotten_through or a.sequence is not null
        or coalesce((e.clock -> r.device_id)::bigint, 0) > coalesce((o.base -> r.device_id)::bigint, 0)) as forked
    from unnest(p_operations) o
    left join lateral (select * from syncline.entities x where x.scope = r.scope and x.entity_type = o.entity_type
      and x.entity_id >= o.entity_id order by x.entity_id limit 1) e on e.entity_id = o.entity_id
    left join lateral (select * from syncline.operations x where x.scope = r.scope
      and x.idempotency_key >= o.key order by x.idempotency_key limit 1) k on k.idempotency_key = o.key
    left join lateral (select x.sequence from syncline.operations x where x.scope = r.scope and x.device_id = r.device_id
      and x.sequence >= o.sequence and x.verdict in ('applied', 'merged') order by x.sequence limit 1) a on a.sequence = o.sequence
    left join lateral (select x.id, x.conflict from syncline.conflicts x where x.scope = r.scope
      and x.id >= k.conflict_id order by x.id limit 1) c on c.id = k.conflict_id
    left join syncline.entity_types y on y.entity_type = o.entity_type
  ) t;
  -- What waits for others must be decided in order, unless nothing can go wrong.
  if false = any (b.plain) then
    select array_agg(p.plain and o.group_id is null and o.depends_on is null order by o.n) into b.plain
    from unnest(b.operations) o join unnest(b.plain) with ordinality as p(plain, n) on p.n = o.n;
  end if;
  return b;
end
$$;

-- The records after the plain operations, and their verdicts.
create function syncline.apply_plain(r syncline.request, b syncline.batch) returns syncline.batch
language plpgsql stable set search_path = '' as $$
begin
  select
    array_agg(case
      when not t.plain or not t.changes then t.old
      when t.kind = 'delete' then row((t.old).version, (t.old).payload, (t.old).fields, (t.old).created, t.write,
        syncline.clock_of((t.old).fields, (t.old).created, t.write), greatest((t.old).changed_at, t.at), (t.old).bytes)::syncline.state
      when t.existed then row((t.old).version, t.payload, t.fields, (t.old).created, null,
        -- The clock and the moment follow from all writes; mostly the newest one is also the highest.
        case when (t.old).clock - r.device_id = '{}' and t.sequence >= ((t.old).clock -> r.device_id)::bigint
          then jsonb_build_object(r.device_id, t.sequence) else syncline.clock_of(t.fields, (t.old).created, null) end,
        case when t.at >= (t.old).changed_at then t.at else syncline.changed_at_of(t.fields, (t.old).created, null) end,
        octet_length(t.payload::text))::syncline.state
      else row(null, t.payload, '{}'::jsonb, t.write, null, jsonb_build_object(r.device_id, t.sequence), t.at,
        octet_length(t.payload::text))::syncline.state
      end order by t.n),
    array_agg(case when t.plain then row('applied', null, null, null, null, null, true)::syncline.outcome end order by t.n),
    array_agg(t.plain and t.changes order by t.n)
    into b.states, b.outcomes, b.changed
  from (
    select u.n, u.kind, u.sequence, u.at, u.plain, u.old, u.write, (u.old).version is not null as existed,
      case when (u.old).version is null then u.kind = 'create' else u.kind = 'delete' or u.patch <> '{}' end as changes,
      case when u.plain and u.kind <> 'delete' then
        case when u.has_null then syncline.without_nulls(coalesce((u.old).payload, '{}') || u.patch)
          else coalesce((u.old).payload || u.patch, u.patch) end end as payload,
      case when u.plain and u.kind <> 'delete' and (u.old).version is not null then
        (u.old).fields || (select coalesce(jsonb_object_agg(k.key, u.write), '{}') from jsonb_object_keys(u.patch) as k(key)) end as fields
    from (
      select o.n, o.kind, o.sequence, o.at, o.patch, p.plain,
        case when o.n = o.lane then b.before[o.n] end as old, jsonb_build_array(r.device_id, o.sequence, o.at) as write,
        jsonb_path_exists(o.patch, 'strict $.* ? (@ == null)') as has_null
      from unnest(b.operations) o join unnest(b.plain) with ordinality as p(plain, n) on p.n = o.n) u
  ) t;
  return b;
end
$$;
