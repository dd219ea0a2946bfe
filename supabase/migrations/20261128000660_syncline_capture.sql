-- Direct writes. Whoever writes a registered table without Syncline has the changed rows noted in `syncline.captures`, by a trigger
-- that takes no lock of the scope and knows nothing of versions. The next push or pull of the scope makes them the server's
-- writes, under the scope's lock: it compares each row with its record, and what differs gets a version, the dot (`server`,
-- version), and a base that covers everything: it never conflicts, and what it changes is what devices have not seen.
--
-- The rows of a push are locked before captures are looked for. So a direct write that was under way is waited for and judged like any
-- earlier write, and one that begins later waits for the push: no value is overwritten unseen.

-- Makes what others wrote the server's writes. `p_operations`: what is about to be judged; its rows are locked, and its captures come
-- first. Gives the scope's head afterwards, how many subtransactions were used, and whether more is waiting.
create function syncline.absorb(p_scope text, p_head bigint, p_now bigint, p_operations syncline.operation[],
  out head bigint, out used int, out has_more boolean)
language plpgsql volatile set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
  c_at_once constant int := 2000;
  v_taken record;
  v_message text;
  t record;
begin
  head := p_head;
  used := 0;
  has_more := false;
  if not exists (select from syncline.registered_tables) then
    return;
  end if;
  for t in
    select y.entity_type, o.ids from syncline.registered_tables y
    left join (select u.entity_type, array_agg(distinct u.entity_id) as ids from unnest(p_operations) u group by 1) o using (entity_type)
    where o.ids is not null
      or exists (select from syncline.captures c where c.scope = p_scope and c.entity_type = y.entity_type and c.fault is null)
    order by y.rank, y.id
  loop
    used := used + 1;
    begin
      if t.ids is not null then
        perform from syncline.table_rows(t.entity_type, p_scope, t.ids, true);
      end if;
      with gone as (
        delete from syncline.captures c where c.scope = p_scope and c.id in (
          select w.id from syncline.captures w
          where w.scope = p_scope and w.entity_type = t.entity_type and w.entity_id = any (t.ids) and w.fault is null
          union
          (select w.id from syncline.captures w where w.scope = p_scope and w.entity_type = t.entity_type and w.fault is null
            order by w.id limit c_at_once))
        returning c.entity_id, c.id)
      select array_agg(g.entity_id order by g.id) as ids, sum(g.captures) as captures into v_taken
      from (select u.entity_id, min(u.id) as id, count(*) as captures from gone u group by 1) g;
      if v_taken.ids is not null then
        -- Those of `converted` and `settle_clocks`.
        used := used + 5;
        head := head + syncline.absorb_rows(p_scope, t.entity_type, v_taken.ids, head, p_now);
        has_more := has_more or v_taken.captures >= c_at_once;
      end if;
    exception
      -- The table is no longer what it was when it was registered: its rows wait, all else goes on. `check_tables` says what is wrong.
      when syntax_error_or_access_rule_violation or data_exception or invalid_schema_name then
        get stacked diagnostics v_message = message_text;
        raise warning 'Syncline cannot read the table of %: %', t.entity_type, v_message;
    end;
  end loop;
  if head > p_head then
    update syncline.scopes s set head = absorb.head where s.scope = p_scope;
  end if;
end
$$;

-- The same for a scope of which nothing is known yet, until nothing is waiting, or `p_rounds` times; gives how many records changed.
create function syncline.absorb_scope(p_scope text, p_rounds int default 1000000, out changed bigint, out has_more boolean)
language plpgsql volatile set search_path = '' as $$
declare
  v_now constant bigint := syncline.clock();
  v_scope syncline.scopes;
  r syncline.request;
  v record;
begin
  r.scope := p_scope;
  r.mark := 0;
  v_scope := syncline.open_scope(r, null, v_now);
  changed := 0;
  for v_round in 1 .. p_rounds loop
    select * into v from syncline.absorb(p_scope, v_scope.head, v_now, null);
    changed := changed + v.head - v_scope.head;
    v_scope.head := v.head;
    has_more := v.has_more;
    exit when not has_more;
  end loop;
end
$$;

-- Compares rows with their records and writes what differs; gives how many records changed.
create function syncline.absorb_rows(p_scope text, p_entity_type text, p_ids text[], p_head bigint, p_now bigint) returns int
language plpgsql volatile set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
  v_ids text[];
  v_rows jsonb[];
  v_payloads jsonb[];
  v_converted jsonb[];
  v_changed int;
begin
  -- What is known to be too much for a record waits until the row changes again.
  delete from syncline.captures c
  where c.scope = p_scope and c.entity_type = p_entity_type and c.entity_id = any (p_ids) and c.fault is not null;
  with compared as materialized (
    select k.n, k.id, t.record, case when e.deleted is null then e.payload end as payload,
      case when t.record is not null then syncline.row_fault(k.id, t.record) end as fault
    from unnest(p_ids) with ordinality as k(id, n)
    left join syncline.table_rows(p_entity_type, p_scope, p_ids, false) t on t.entity_id = k.id
    left join syncline.entities e on e.scope = p_scope and e.entity_type = p_entity_type and e.entity_id = k.id
    where t.record is distinct from case when e.deleted is null then e.payload end
  ), held as (
    insert into syncline.captures (scope, entity_type, entity_id, fault)
    select p_scope, p_entity_type, c.id, c.fault from compared c where c.fault is not null
  )
  select array_agg(c.id order by c.n), array_agg(c.record order by c.n), array_agg(c.payload order by c.n) into v_ids, v_rows, v_payloads
  from compared c where c.fault is null;
  if v_ids is null then
    perform syncline.settle_clocks(p_scope, p_entity_type, p_ids, p_head);
    return 0;
  end if;
  v_converted := syncline.converted(p_entity_type, v_payloads);

  with differing as (
    select k.id, k.record, row_number() over (order by k.n) + p_head as version, f.names
    from unnest(v_ids, v_rows, v_payloads, v_converted) with ordinality as k(id, record, payload, converted, n)
    cross join lateral (select case when k.record is not null and k.payload is not null
      then syncline.disagreeing(k.payload, k.converted, k.record) end as names) f
    where k.record is null or k.payload is null or f.names is not null
  ), written as (
    select d.id, d.version, jsonb_build_array('server', d.version, greatest(p_now, e.changed_at + 1)) as write, d.names,
      case when d.record is null then e.payload when d.names is null then d.record else syncline.with_fields(e.payload, d.record, d.names) end as payload,
      case when d.names is null and d.record is not null then '{}' else e.fields end as fields,
      case when d.names is null and d.record is not null then null else e.created end as created,
      d.record is null as is_gone
    from differing d
    left join syncline.entities e on e.scope = p_scope and e.entity_type = p_entity_type and e.entity_id = d.id
  )
  insert into syncline.entities (scope, entity_type, entity_id, version, payload, fields, created, deleted, clock, changed_at, bytes, stored_at)
  select p_scope, p_entity_type, s.id, s.version, s.payload, s.fields, s.created, s.deleted,
    syncline.clock_of(s.fields, s.created, s.deleted), (s.write -> 2)::bigint, octet_length(s.payload::text), p_now
  from (
    select w.id, w.version, w.write, w.payload, w.fields || coalesce((select jsonb_object_agg(n.name, w.write) from unnest(w.names) as n(name)), '{}') as fields,
      coalesce(w.created, w.write) as created, case when w.is_gone then w.write end as deleted
    from written w) s
  on conflict (scope, entity_type, entity_id) do update set version = excluded.version, payload = excluded.payload,
    fields = excluded.fields, created = excluded.created, deleted = excluded.deleted, clock = excluded.clock,
    changed_at = excluded.changed_at, bytes = excluded.bytes, stored_at = excluded.stored_at;
  get diagnostics v_changed = row_count;
  perform syncline.settle_clocks(p_scope, p_entity_type, p_ids, p_head);
  return v_changed;
end
$$;

-- A record with some fields as a row has them.
create function syncline.with_fields(p_record jsonb, p_row jsonb, p_names text[]) returns jsonb
language sql immutable set search_path = '' as $$
  select (p_record - p_names) || coalesce(jsonb_object_agg(n.name, p_row -> n.name) filter (where p_row ? n.name), '{}')
  from unnest(p_names) as n(name)
$$;

-- Records as the columns' types would hold them. Where a column's type has changed since, nothing is known: null.
create function syncline.converted(p_entity_type text, p_records jsonb[]) returns jsonb[]
language plpgsql stable set search_path = '' as $$
begin
  return syncline.table_converted(p_entity_type, p_records);
exception when data_exception or integrity_constraint_violation then
  return null;
end
$$;

-- Writes records' clocks to their rows, but for rows that somebody else holds: their turn comes with that write. A trigger of the
-- table may change a row once more: that belongs to the write of the server's that was just made, lest every pull found another
-- difference; where none was made, it is noted.
create function syncline.settle_clocks(p_scope text, p_entity_type text, p_ids text[], p_head bigint) returns void
language plpgsql volatile set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
  v_ids text[];
  v_clocks jsonb[];
  v_payloads jsonb[];
  v_rows jsonb[];
begin
  for v_round in 1 .. 3 loop
    select array_agg(e.entity_id), array_agg(e.clock) into v_ids, v_clocks
    from syncline.entities e
    where e.scope = p_scope and e.entity_type = p_entity_type and e.entity_id = any (p_ids) and e.deleted is null;
    exit when v_ids is null;
    select array_agg(w.entity_id), array_agg(w.record) into v_ids, v_rows from syncline.table_clocks(p_entity_type, p_scope, v_ids, v_clocks) w;
    exit when v_ids is null;
    select array_agg(e.payload order by k.n) into v_payloads from unnest(v_ids) with ordinality as k(id, n)
    join syncline.entities e on e.scope = p_scope and e.entity_type = p_entity_type and e.entity_id = k.id;
    with differing as materialized (
      select e.entity_id, e.version, e.payload, e.fields, k.record, f.names, jsonb_build_array('server', e.version, e.changed_at) as write
      from unnest(v_ids, v_rows, syncline.converted(p_entity_type, v_payloads)) as k(id, record, converted)
      join syncline.entities e on e.scope = p_scope and e.entity_type = p_entity_type and e.entity_id = k.id
      cross join lateral (select syncline.disagreeing(e.payload, k.converted, k.record) as names) f
      where f.names is not null
    ), noted as (
      insert into syncline.captures (scope, entity_type, entity_id)
      select p_scope, p_entity_type, d.entity_id from differing d where d.version <= p_head
    )
    select array_agg(d.entity_id), array_agg(syncline.with_fields(d.payload, d.record, d.names)),
      array_agg(d.fields || (select jsonb_object_agg(n.name, d.write) from unnest(d.names) as n(name)))
      into v_ids, v_payloads, v_rows
    from differing d where d.version > p_head;
    exit when v_ids is null;
    update syncline.entities e set payload = s.payload, fields = s.fields, clock = syncline.clock_of(s.fields, e.created, null),
      bytes = octet_length(s.payload::text)
    from unnest(v_ids, v_payloads, v_rows) as s(id, payload, fields)
    where e.scope = p_scope and e.entity_type = p_entity_type and e.entity_id = s.id;
  end loop;
exception when others then
  if syncline.is_transient(sqlstate) then
    raise;
  end if;
  -- A trigger or a constraint of the table does not let the row be written: it keeps the clock it has.
  raise warning 'Syncline cannot write the clocks of % (SQLSTATE %)', p_entity_type, sqlstate;
end
$$;

-- Whether an error says nothing about what was written: the same may succeed later.
create function syncline.is_transient(p_state text) returns boolean
language sql immutable set search_path = '' as $$
  select left(p_state, 2) in ('08', '25', '40', '53', '55', '57', '58', 'XX')
$$;
