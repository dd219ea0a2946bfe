-- The operations of a push: read by one statement, then checked. A malformed one is named and refuses the push.

create type syncline.operation as (
  n int, lane int, alone boolean,  -- its place; that of the first operation of its entity; whether it is the only one
  id text, key text, sequence bigint, kind text, entity_type text, entity_id text,
  hash bytea, bytes int,           -- of its content, over the payload's text as received; of that text, if there is one
  patch jsonb, fault jsonb,        -- the fields it writes; or what it is to be rejected with
  before jsonb, base jsonb, at bigint,
  group_id text, depends_on text[], void boolean, conflict_rule text, delete_rule text
);

-- The operations of a push, read; the problem, if one of them is not as it must be in type and form.
create function syncline.read_operations(r syncline.request, p_settings syncline.settings, p_now bigint,
  out operations syncline.operation[], out about jsonb)
language plpgsql stable set search_path = '' as $$
declare
  v_wrong int;
  v_fault text;
  v_elements json[];
  v_nulls text[];
  v_max_at constant bigint := p_now + 60000;
begin
  select min(e.n) into v_wrong
  from json_array_elements(r.operations) with ordinality as e(value, n) where json_typeof(e.value) <> 'object';
  if v_wrong is not null then
    about := syncline.invalid(format('operations[%s]', v_wrong - 1), 'has the wrong type or form');
    return;
  end if;
  if r.careful then
    select array_agg(e.value order by e.n), array_agg(syncline.null_fault(e.value) order by e.n) into v_elements, v_nulls
    from json_array_elements(r.operations) with ordinality as e(value, n);
  end if;
  with raw as (
    select x.*, x.n::int as place,
      case when json_typeof(x.payload) = 'string' then (v_elements[x.n] -> 'payload')::text else x.payload::text end as text
    from rows from (json_to_recordset(r.operations) as (id json, idempotency_key json, sequence json, operation json,
      entity_type json, entity_id json, payload json, before json, base_clock json, "timestamp" json, transaction_id json,
      depends_on json, void json, conflict_rule json, delete_rule json)) with ordinality as x(id, idempotency_key, sequence,
      operation, entity_type, entity_id, payload, before, base_clock, "timestamp", transaction_id, depends_on, void,
      conflict_rule, delete_rule, n)
  ), typed as materialized (
    select w.*,
      case when json_typeof(w.id) = 'string' then w.id #>> '{}' end as t_id,
      case when json_typeof(w.idempotency_key) = 'string' then w.idempotency_key #>> '{}' end as t_key,
      case when json_typeof(w.entity_type) = 'string' then w.entity_type #>> '{}' end as t_type,
      case when json_typeof(w.entity_id) = 'string' then w.entity_id #>> '{}' end as t_entity,
      case when json_typeof(w.transaction_id) = 'string' then w.transaction_id #>> '{}' end as t_group,
      case w.operation::text when '"create"' then 'create' when '"update"' then 'update' when '"delete"' then 'delete' end as t_kind,
      case when w.sequence::text ~ '^[0-9]{1,15}$' then w.sequence::text::bigint else syncline.counter(w.sequence) end as t_sequence,
      case
        -- The form that devices write, of days that every month has; everything else takes longer.
        when translate(w."timestamp"::text, '123456789', '000000000') = '"0000-00-00T00:00:00.000Z"'
          and substr(w."timestamp"::text, 2, 4) >= '0001' and substr(w."timestamp"::text, 7, 2) between '01' and '12'
          and substr(w."timestamp"::text, 10, 2) between '01' and '28' and substr(w."timestamp"::text, 13, 2) < '24'
          and substr(w."timestamp"::text, 16, 2) < '60' and substr(w."timestamp"::text, 19, 2) < '60'
        then round(date_part('epoch', substr(w."timestamp"::text, 2, 24)::timestamptz) * 1000)::bigint
        else syncline.millis(syncline.string(w."timestamp")) end as t_at,
      case when w.operation::text <> '"delete"' and octet_length(w.text) <= p_settings.max_payload_bytes
        then syncline.read_object(w.text, r.careful) end as t_patch,
      case w.conflict_rule::text when '"last_writer_wins"' then 'last_writer_wins' when '"server_wins"' then 'server_wins'
        when '"client_wins"' then 'client_wins' when '"manual"' then 'manual' end as t_conflict,
      case w.delete_rule::text when '"update_wins"' then 'update_wins' when '"delete_wins"' then 'delete_wins' end as t_delete,
      w.base_clock is null or w.base_clock::text ~ '^\{\s*(?:"(?:[^"\\]|\\.)*"\s*:\s*[1-9][0-9]{0,14}\s*(?:,\s*(?=")|(?=\})))*\}$' as clock_ok
    from raw w
  )
  select
    array_agg(row(
      f.place, f.lane, f.alone, f.t_id, f.t_key, f.t_sequence, f.t_kind, f.t_type, f.t_entity,
      sha256(int8send(octet_length(f.t_kind)) || convert_to(f.t_kind, 'UTF8')
        || int8send(octet_length(f.t_type)) || convert_to(f.t_type, 'UTF8')
        || int8send(octet_length(f.t_entity)) || convert_to(f.t_entity, 'UTF8')
        || int8send(octet_length(f.hashed)) || convert_to(f.hashed, 'UTF8')),
      case when f.text is null then 0 else octet_length(f.hashed) end,
      case when f.t_kind = 'delete' then '{}' when f.t_patch is not null then f.t_patch
        when f.t_fault is null then syncline.to_record(f.text::json) end,
      f.t_fault,
      case when f.before is not null then syncline.before_of(f.before, r.careful, r.poison) end,
      case when f.base_clock is null then '{}' when f.clock_ok then f.base_clock::text::jsonb else syncline.clock_from(f.base_clock) end,
      least(f.t_at, v_max_at), f.t_group,
      case when f.depends_on is not null then (select array_agg(d.id) from json_array_elements_text(f.depends_on) as d(id)) end,
      coalesce(f.void::text = 'true', false), f.t_conflict, f.t_delete)::syncline.operation order by f.place)
      filter (where f.fault is null),
    min(f.place) filter (where f.fault is not null), (array_agg(f.fault order by f.place) filter (where f.fault is not null))[1]
    into operations, v_wrong, v_fault
  from (
    select g.*, first_value(g.place) over lane as lane, count(*) over (partition by g.t_type collate "C", g.t_entity collate "C") = 1 as alone,
      coalesce(case when r.poison is null then g.text else syncline.restored(g.text, r.poison) end, 'null') as hashed,
      case when g.t_patch is null and g.t_kind <> 'delete'
        then syncline.payload_fault(g.text, g.t_kind, r.poison, p_settings.max_payload_bytes) end as t_fault
    from (
      select t.*, coalesce(case
            when t.t_id is null then 'id'
            when t.t_key is null then 'idempotency_key'
            when t.t_sequence is null then 'sequence'
            when t.t_kind is null then 'operation'
            when t.t_type is null then 'entity_type'
            when t.t_entity is null then 'entity_id'
            when json_typeof(t.before) <> 'object' then 'before'
            when not t.clock_ok then syncline.clock_fault(t.base_clock)
            when t.t_at is null then 'timestamp'
            when t.transaction_id is not null and t.t_group is null then 'transaction_id'
            when t.depends_on is not null then syncline.dependencies_fault(t.depends_on)
          end,
          case
            when json_typeof(t.void) <> 'boolean' then 'void'
            when t.conflict_rule is not null and t.t_conflict is null then 'conflict_rule'
            when t.delete_rule is not null and t.t_delete is null then 'delete_rule'
            when r.careful then v_nulls[t.place]
          end) as fault
      from typed t) g
    window lane as (partition by g.t_type collate "C", g.t_entity collate "C" order by g.place)
  ) f;
  if v_wrong is not null then
    about := syncline.invalid(format('operations[%s].%s', v_wrong - 1, v_fault),
      case when v_fault !~ '[.[]' and r.operations -> (v_wrong - 1) -> v_fault is null then 'is missing' else 'has the wrong type or form' end);
  end if;
  operations := coalesce(operations, '{}');
end
$$;

-- The member of a clock that is no counter.
create function syncline.clock_fault(p_clock json) returns text
language plpgsql immutable set search_path = '' as $$
declare
  v_device text;
begin
  if json_typeof(p_clock) <> 'object' then
    return 'base_clock';
  end if;
  select c.key into v_device from json_each(p_clock) c where syncline.counter(c.value) is null limit 1;
  return 'base_clock.' || v_device;
end
$$;

-- A clock in a form that a direct cast might not take: without entries that say nothing. What is beyond 2^53 - 1 is found by the
-- check that follows.
create function syncline.clock_from(p_clock json) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_object_agg(c.key, syncline.counter(c.value)) filter (where syncline.counter(c.value) > 0), '{}')
    from json_each(p_clock) c);
end
$$;

create function syncline.dependencies_fault(p_ids json) returns text
language plpgsql immutable set search_path = '' as $$
declare
  v_place int;
begin
  if json_typeof(p_ids) <> 'array' then
    return 'depends_on';
  end if;
  select d.n into v_place from json_array_elements(p_ids) with ordinality as d(id, n) where json_typeof(d.id) <> 'string' order by d.n limit 1;
  return 'depends_on[' || v_place - 1 || ']';
end
$$;

-- A member whose default was meant and that says null.
create function syncline.null_fault(p_operation json) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select m.name from unnest(array['base_clock', 'depends_on', 'void']) as m(name)
    where json_typeof(p_operation -> m.name) = 'null' limit 1);
end
$$;

-- What is out of range in the operations: names, ids, counters, what is given twice, lane order, transactions; null if nothing.
create function syncline.check_operations(p_operations syncline.operation[], p_forgotten_through bigint) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_wrong syncline.operation;
  v_about jsonb;
begin
  select o.* into v_wrong from unnest(p_operations) o
  where o.sequence not between greatest(p_forgotten_through, 0) + 1 and 9007199254740991
    or length(o.id) not between 1 and 128 or length(o.key) not between 1 and 128
    or length(o.entity_id) not between 1 and 128 or length(o.group_id) not between 1 and 128
    or concat(o.id, o.key, o.entity_id, o.group_id) ~ '[\u0001-\u001f\u007f-\u009f]'
    or o.entity_type !~ '^[a-z0-9_]{1,64}$'
    -- A short one without anything unusual has only good ids and counters.
    or (octet_length(o.base::text) > 128 or o.base::text ~ '\\|""|[0-9]{16}|[\u007f-\u009f]') and syncline.clock_out_of_range(o.base)
    or o.depends_on is not null and exists (select from unnest(o.depends_on) as d(id) where not syncline.is_id(d.id))
  order by o.n limit 1;
  if found then
    return syncline.check_operation(v_wrong, p_forgotten_through);
  end if;

  if (select count(distinct o.id collate "C") < count(*) or count(distinct o.key collate "C") < count(*)
        or count(distinct o.sequence) < count(*) from unnest(p_operations) o) then
    select syncline.invalid(format('operations[%s].%s', t.n - 1,
        case when t.ids > 1 then 'id' when t.keys > 1 then 'idempotency_key' else 'sequence' end), 'is given twice') into v_about
    from (select o.n,
        row_number() over (partition by o.id collate "C" order by o.n) as ids,
        row_number() over (partition by o.key collate "C" order by o.n) as keys,
        row_number() over (partition by o.sequence order by o.n) as sequences
      from unnest(p_operations) o) t
    where t.ids > 1 or t.keys > 1 or t.sequences > 1 order by t.n limit 1;
    return v_about;
  end if;

  select syncline.invalid(format('operations[%s].%s', t.n - 1, t.member), t.detail) into v_about
  from (
    select o.n, 0 as place, 'sequence' as member, 'is out of the lane''s order' as detail
    from (select u.n, u.alone, u.sequence, lag(u.sequence) over (partition by u.lane order by u.n) as earlier
          from unnest(p_operations) u where not u.alone) o
    where o.earlier > o.sequence
    union all
    select o.n, d.place, format('depends_on[%s]', d.place - 1), 'is not an earlier operation'
    from unnest(p_operations) o
    cross join lateral unnest(o.depends_on) with ordinality as d(id, place)
    join unnest(p_operations) e on e.id = d.id and e.n >= o.n
    where o.depends_on is not null
  ) t order by t.n, t.place limit 1;
  return coalesce(v_about, syncline.check_transactions(p_operations));
end
$$;

create function syncline.clock_out_of_range(p_clock jsonb) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return exists (select from jsonb_each(p_clock) c where not syncline.is_id(c.key) or c.value::bigint > 9007199254740991);
end
$$;

-- What is out of range in one operation.
create function syncline.check_operation(o syncline.operation, p_forgotten_through bigint) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  c_id constant text := 'is not 1 to 128 characters without control characters';
  v_member text;
  v_detail text := c_id;
begin
  case
    when not syncline.is_id(o.id) then v_member := 'id';
    when not syncline.is_id(o.key) then v_member := 'idempotency_key';
    when not syncline.is_id(o.entity_id) then v_member := 'entity_id';
    when not syncline.is_id(o.group_id) then v_member := 'transaction_id';
    when not syncline.is_name(o.entity_type) then
      v_member := 'entity_type';
      v_detail := 'is not 1 to 64 characters of [a-z0-9_]';
    when o.sequence not between 1 and 9007199254740991 then
      v_member := 'sequence';
      v_detail := 'is not between 1 and 2^53 - 1';
    when o.sequence <= p_forgotten_through then
      v_member := 'sequence';
      v_detail := 'is not above forgotten_through';
    when syncline.clock_out_of_range(o.base) then
      v_member := 'base_clock';
      v_detail := 'has a device id or a counter out of range';
    else
      select format('depends_on[%s]', d.n - 1) into v_member
      from unnest(o.depends_on) with ordinality as d(id, n) where not syncline.is_id(d.id) order by d.n limit 1;
  end case;
  return syncline.invalid(format('operations[%s].%s', o.n - 1, v_member), v_detail);
end
$$;

-- The members of a transaction stand next to each other, are within its limits, and are all voided or none.
create function syncline.check_transactions(p_operations syncline.operation[]) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select syncline.invalid(format('operations[%s].transaction_id', g.start - 1), case
        when g.again then 'its members do not stand next to each other'
        when g.members > 100 or g.bytes > 1048576 then 'the transaction is over 100 operations or 1 MiB'
        else 'some of its members are voided and some are not' end)
    from (
      select min(t.n) as start, count(*) as members, sum(t.bytes) as bytes, bool_or(t.void) and not bool_and(t.void) as mixed,
        row_number() over (partition by t.group_id collate "C" order by min(t.n)) > 1 as again
      from (
        select o.n, o.group_id, o.void, o.bytes, o.n - row_number() over (partition by o.group_id collate "C" order by o.n) as run
        from unnest(p_operations) o where o.group_id is not null) t
      group by t.group_id collate "C", t.run, t.group_id
    ) g
    where g.again or g.members > 100 or g.bytes > 1048576 or g.mixed
    order by g.start limit 1);
end
$$;
