-- What a push decided, written to the registered tables: in the push's transaction, before the verdicts are stored.
--
-- Mostly every row is as good as its payload. So the whole batch is written first: one statement for each table, parents before
-- children, then the deletions, children before parents; in one subtransaction. If the database refuses, nothing of it is left, and
-- smaller pieces are tried, until one of few groups (transactions, and operations that stand alone) is refused. Its groups are
-- written one after the other, in the order of the batch, up to the one that is refused; those before it are written again to
-- stay, it is rejected, and the rest goes on. A refusal costs a few subtransactions; what is accepted costs hardly any.
--
-- More than 64 subtransactions of one transaction overflow a cache that all sessions share. So at most 50 are used, released ones
-- counted; when they are spent, the push commits what it has and answers `retry`, at once, for the rest.
--
-- Deferrable constraints are deferred while a group is written and checked at its end, so that its order does not matter to them.

-- What a group leaves of an entity: the row to be, or null for none. `n`: the group's last operation of that entity.
create type syncline.row_write as (
  n int, group_first int, entity_type text, rank int, entity_id text, record jsonb, changed jsonb, clock jsonb,
  is_new boolean  -- there was no row
);

-- The first of them that the database refused: the operation at fault, where its group begins, and why; nulls if there is none.
create type syncline.refused_write as (culprit int, group_first int, error jsonb, searched boolean);

-- An operation that is not to be applied, and why. What waits for others must then be decided in order.
create function syncline.faulted(b syncline.batch, p_n int, p_error jsonb) returns syncline.batch
language plpgsql stable set search_path = '' as $$
begin
  b.operations[p_n].fault := p_error;
  b.plain[p_n] := false;
  select array_agg(p.plain and o.group_id is null and o.depends_on is null order by o.n) into b.plain
  from unnest(b.operations) o join unnest(b.plain) with ordinality as p(plain, n) on p.n = o.n;
  return b;
end
$$;

-- Marks what no table can take, before anything is judged: an id of another form than the column's, fields without a column, values of
-- another kind, fields that only the server sets. (What a column's type or a constraint makes of a value, only the database knows.)
create function syncline.check_columns(b syncline.batch) returns syncline.batch
language plpgsql stable set search_path = '' as $$
declare
  v record;
begin
  for v in
    select distinct on (w.n) w.n, w.error || jsonb_build_object('field', w.field) as error
    from (
      select o.n, 0 as place, t.id_column as field, syncline.error('invalid_value', 'is not of the type ' || t.id_type) as error
      from unnest(b.operations) o join syncline.registered_tables t on t.entity_type = o.entity_type
      where o.fault is null and not o.void and not syncline.is_key(t.id_type, o.entity_id)
      union all
      select o.n, 1, p.key, syncline.value_refused(t.fields -> p.key, t.rest_column is not null, p.value)
      from unnest(b.operations) o
      join syncline.registered_tables t on t.entity_type = o.entity_type
      cross join lateral jsonb_each(o.patch) p
      where o.fault is null and not o.void) w
    where w.error is not null order by w.n, w.place, w.field
  loop
    b := syncline.faulted(b, v.n, v.error);
  end loop;
  return b;
end
$$;

create function syncline.value_refused(p_field jsonb, p_has_rest boolean, p_value jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select case
    when p_field is null then case when not p_has_rest and p_value <> 'null' then syncline.error('invalid_value', 'the table has no column for it') end
    when (p_field -> 'generated')::boolean then syncline.error('invalid_value', 'the database computes it')
    when (p_field -> 'read_only')::boolean then syncline.error('forbidden', 'only the server sets it')
    when p_value <> 'null' and p_field ->> 'json' <> 'any' and jsonb_typeof(p_value) <> replace(p_field ->> 'json', 'large_', '')
      and not (p_field ->> 'json' = 'large_number' and jsonb_typeof(p_value) = 'string')
    then syncline.error('invalid_value', 'is not of the type ' || (p_field ->> 'type')) end
$$;

-- Judges the whole batch. An operation whose fault says when it may be sent again is answered `retry`, and so is its transaction.
create function syncline.decide_all(r syncline.request, b syncline.batch, p_now bigint) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
declare
  v record;
begin
  b := syncline.apply_plain(r, b);
  if false = any (b.plain) then
    b := syncline.decide(r, b, p_now);
    for v in
      select m.n, o.fault from unnest(b.operations) o join unnest(b.operations) m on m.n = o.n or m.group_id = o.group_id
      where o.fault ? 'retry_after_ms'
    loop
      if b.outcomes[v.n].is_new then
        b.outcomes[v.n] := row('retry', null, null, null, v.fault, null, false)::syncline.outcome;
      end if;
    end loop;
  end if;
  return b;
end
$$;

-- The rows that a decided batch makes, group by group.
create function syncline.row_writes(b syncline.batch) returns syncline.row_write[]
language plpgsql stable set search_path = '' as $$
declare
  v_states constant syncline.state[] := b.states;
  v_after constant syncline.state[] := b.after;
  v_before constant syncline.state[] := b.before;
  v_outcomes constant syncline.outcome[] := b.outcomes;
begin
  return (
    with effective as (
      select o.n, o.lane, o.entity_type, o.entity_id, t.rank,
        case when o.group_id is null then o.n else min(o.n) over (partition by o.group_id) end as start,
        case when p.plain then v_states[o.n] else v_after[o.n] end as state
      from unnest(b.operations) o
      join unnest(b.plain) with ordinality as p(plain, n) on p.n = o.n
      join syncline.registered_tables t on t.entity_type = o.entity_type
      where v_outcomes[o.n].is_new and v_outcomes[o.n].status in ('applied', 'merged')
    ), last_ones as (
      select distinct on (e.lane, e.start) e.* from effective e
      where (e.state).created is not null order by e.lane, e.start, e.n desc
    ), steps as (
      select l.*, coalesce(lag(l.state) over (partition by l.lane order by l.n), v_before[l.lane]) as old from last_ones l
    )
    select array_agg(row(s.n, s.start, s.entity_type, s.rank, s.entity_id, case when (s.state).deleted is null then (s.state).payload end,
        syncline.changed_fields(case when (s.old).deleted is null then coalesce((s.old).payload, '{}') else '{}' end,
          case when (s.state).deleted is null then (s.state).payload else '{}' end),
        syncline.clock_of((s.state).fields, (s.state).created, (s.state).deleted),
        (s.old).created is null or (s.old).deleted is not null)::syncline.row_write order by s.n)
    from steps s
    where ((s.state).payload, (s.state).fields, (s.state).created, (s.state).deleted)
      is distinct from ((s.old).payload, (s.old).fields, (s.old).created, (s.old).deleted)
      and ((s.state).deleted is null or (s.old).created is not null));
end
$$;

-- Writes rows of any number of groups at once, all or none; whether the database took them.
create function syncline.write_rows(p_scope text, p_writes syncline.row_write[]) returns boolean
language plpgsql volatile set search_path = '' as $$
declare
  t record;
begin
  set constraints all deferred;
  -- Rows that are deleted and made again, on the way.
  for t in
    select w.entity_type, array_agg(w.entity_id) as ids from (
      select u.entity_type, u.entity_id, u.rank from unnest(p_writes) u group by u.entity_type, u.entity_id, u.rank
      having bool_or(u.is_new) and not (array_agg(u.is_new order by u.n))[1] and (array_agg(u.record is null order by u.n desc))[1] = false) w
    group by 1, w.rank order by w.rank desc, w.entity_type
  loop
    perform syncline.table_drop(t.entity_type, p_scope, t.ids);
  end loop;
  for t in
    select w.entity_type, w.rank, array_agg(w.entity_id order by w.n) as ids, array_agg(w.record order by w.n) as records,
      array_agg(w.changed order by w.n) as changed, array_agg(w.clock order by w.n) as clocks,
      array_agg(w.is_new order by w.n) as is_new
    from (
      -- Of an entity that several groups write, the last row, with all that changed on the way to it.
      select (l.last).n, (l.last).entity_type, (l.last).rank, (l.last).entity_id, (l.last).record, (l.last).clock, l.is_new,
        case when cardinality(l.changed) = 1 then l.changed[1]
          else (select jsonb_object_agg(k.key, true) from unnest(l.changed) as c(fields) cross join lateral jsonb_object_keys(c.fields) as k(key)) end as changed
      from (select (array_agg(u order by u.n desc))[1] as last, array_agg(u.changed) as changed,
        bool_or(u.is_new) as is_new from unnest(p_writes) u group by u.entity_type, u.entity_id) l) w
    where w.record is not null group by 1, 2 order by w.rank, w.entity_type
  loop
    perform syncline.table_put(t.entity_type, p_scope, t.ids, t.records, t.changed, t.clocks, t.is_new);
  end loop;
  for t in
    select w.entity_type, w.rank, array_agg(w.entity_id) as ids
    from (select distinct on (u.entity_type, u.entity_id) u.* from unnest(p_writes) u order by u.entity_type, u.entity_id, u.n desc) w
    where w.record is null group by 1, 2 order by w.rank desc, w.entity_type
  loop
    perform syncline.table_drop(t.entity_type, p_scope, t.ids);
  end loop;
  set constraints all immediate;
  return true;
exception when others then
  if syncline.is_transient(sqlstate) then
    raise;
  end if;
  return false;
end
$$;

-- Writes groups one after the other, all or none of them; gives what the database refused.
create function syncline.write_groups(p_scope text, p_writes syncline.row_write[]) returns syncline.refused_write
language plpgsql volatile set search_path = '' as $$
declare
  f syncline.refused_write;
  w syncline.row_write;
  v_state text;
  v_message text;
  v_column text;
  v_constraint text;
  v_table text;
  v_schema text;
begin
  begin
    foreach w in array p_writes loop
      if w.group_first is distinct from f.group_first then
        set constraints all immediate;
        set constraints all deferred;
        f.group_first := w.group_first;
      end if;
      f.culprit := w.n;
      if w.record is null then
        perform syncline.table_drop(w.entity_type, p_scope, array[w.entity_id]);
      else
        perform syncline.table_put(w.entity_type, p_scope, array[w.entity_id], array[w.record], array[w.changed], array[w.clock], array[w.is_new]);
      end if;
    end loop;
    set constraints all immediate;
    return null;
  exception when others then
    if syncline.is_transient(sqlstate) then
      raise;
    end if;
    get stacked diagnostics v_state = returned_sqlstate, v_message = message_text, v_column = column_name,
      v_constraint = constraint_name, v_table = table_name, v_schema = schema_name;
  end;
  -- A constraint that is checked at the end of a group speaks of its table, which need not be that of the group's last row.
  select u.* into w from unnest(p_writes) u
  join syncline.registered_tables t on t.entity_type = u.entity_type
  where u.group_first = f.group_first and u.n <= f.culprit
  order by syncline.qualified(t.relation) = format('%I.%I', v_schema, v_table) desc, u.n desc limit 1;
  f.culprit := w.n;
  f.error := syncline.refusal(p_scope, w, v_state, v_message, v_column, v_constraint, v_schema, v_table);
  f.searched := left(v_state, 2) = '22' or v_state = '23514';
  return f;
end
$$;

-- The fields of the columns that a constraint or a unique index is about; those of the key come last.
create function syncline.field_of(p_entity_type text, p_constraint text, p_column text) returns text
language sql stable set search_path = '' as $$
  select coalesce(f.key, c.name) from syncline.registered_tables t
  cross join lateral (
    select a.attname as name, a.attname in (t.id_column, t.scope_column) as is_key, k.place
    from pg_attribute a
    join (
      select u.n, u.place from pg_constraint x cross join lateral unnest(x.conkey) with ordinality as u(n, place)
      where x.conrelid = t.relation and x.conname = p_constraint
      union
      select u.n, u.place from pg_index i join pg_class r on r.oid = i.indexrelid and r.relname = p_constraint
      cross join lateral unnest(i.indkey::smallint[]) with ordinality as u(n, place) where i.indrelid = t.relation
    ) k on k.n = a.attnum
    where a.attrelid = t.relation
    union all
    select p_column, false, 0 where p_column <> '') c
  left join jsonb_each(t.fields) f on f.value ->> 'column' = c.name
  where t.entity_type = p_entity_type order by c.is_key, c.name = t.scope_column, c.place limit 1
$$;

-- What the database's refusal of a row means for the operation. No value is repeated.
create function syncline.refusal(p_scope text, w syncline.row_write, p_state text, p_message text, p_column text, p_constraint text,
  p_schema text, p_table text) returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  t syncline.registered_tables;
  v_field text;
  v_bad text;
begin
  select * into strict t from syncline.registered_tables y where y.entity_type = w.entity_type;
  if p_state = '42501' then
    return syncline.error('forbidden', 'the database does not allow it');
  elsif left(p_state, 2) in ('42', '3F') then
    return syncline.error('table_changed', 'the table is no longer what it was when it was registered') || '{"retry_after_ms": 60000}';
  end if;
  if p_table = '' or format('%I.%I', p_schema, p_table) = syncline.qualified(t.relation) then
    v_field := syncline.field_of(w.entity_type, p_constraint, p_column);
  elsif p_state in ('23503', '23001') then
    return syncline.error('invalid_value', format('rows of %s refer to it', p_table)) || jsonb_build_object('field', t.id_column);
  end if;
  if p_state = '23505' and v_field in (t.id_column, t.scope_column) then
    return syncline.taken(p_scope, w, t);
  elsif left(p_state, 2) = '22' or p_state = '23514' and v_field is null then
    v_bad := syncline.table_bad_field(w.entity_type, w.record);
    if v_bad is not null then
      return syncline.error('invalid_value', 'is not of the type ' || (t.fields -> v_bad ->> 'type')) || jsonb_build_object('field', v_bad);
    end if;
  end if;
  return syncline.error('invalid_value', case p_state
      when '23502' then 'must have a value'
      when '23503' then 'refers to what does not exist'
      when '23505' then 'is taken'
      when '23514' then format('breaks the constraint %I', p_constraint)
      when '23P01' then format('breaks the constraint %I', p_constraint)
      -- The table's own words: they are meant to be told.
      when 'P0001' then left(p_message, 256)
      else format('the database refuses it (SQLSTATE %s)', p_state) end)
    || case when v_field is null then '{}' else jsonb_build_object('field', v_field) end;
end
$$;

-- A row of this id is there already. If it is of this scope, somebody has just written it: once its record is known, the same operation is
-- judged like any other.
create function syncline.taken(p_scope text, w syncline.row_write, t syncline.registered_tables) returns jsonb
language plpgsql volatile set search_path = '' as $$
begin
  if exists (select from syncline.captures c
    where c.scope = p_scope and c.entity_type = w.entity_type and c.entity_id = w.entity_id and c.fault is not null) then
    return syncline.error('invalid_value', 'the table has a row of this id that cannot be a record') || jsonb_build_object('field', t.id_column);
  elsif exists (select from syncline.table_rows(w.entity_type, p_scope, array[w.entity_id], false)) then
    insert into syncline.captures (scope, entity_type, entity_id) values (p_scope, w.entity_type, w.entity_id);
    return syncline.error('not_yet', 'the row has just been written by somebody else') || '{"retry_after_ms": 0}';
  end if;
  return syncline.error('invalid_value', 'is taken') || jsonb_build_object('field', t.id_column);
end
$$;

-- Asks the tables' authorize functions about everything that would have effect, one call for each; marks what they refuse.
create function syncline.authorized(r syncline.request, b syncline.batch, p_decided syncline.batch) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
declare
  v_states constant syncline.state[] := p_decided.states;
  v_after constant syncline.state[] := p_decided.after;
  v_outcomes constant syncline.outcome[] := p_decided.outcomes;
  t syncline.registered_tables;
  v record;
  v_allowed boolean[];
begin
  for t in
    select * from syncline.registered_tables y
    where y.authorize is not null and y.entity_type in (select o.entity_type from unnest(b.operations) o) order by y.entity_type
  loop
    with rows as materialized (
      select * from syncline.table_rows(t.entity_type, r.scope, (select array_agg(distinct o.entity_id) from unnest(b.operations) o
        where o.entity_type = t.entity_type), false)
    ), asked as (
      select o.n, o.lane, o.kind, o.entity_id, w.row_json, case when (s.state).deleted is null then
          coalesce(w.row_json, '{}') || jsonb_build_object(t.scope_column, r.scope, t.id_column, coalesce(w.row_json -> t.id_column, to_jsonb(o.entity_id)))
          || syncline.row_of(t.fields, (s.state).payload) end as new_row
      from unnest(b.operations) o
      join unnest(p_decided.plain) with ordinality as p(plain, n) on p.n = o.n
      cross join lateral (select case when p.plain then v_states[o.n] else v_after[o.n] end as state) s
      left join rows w on w.entity_id = o.entity_id
      where o.entity_type = t.entity_type and v_outcomes[o.n].is_new and v_outcomes[o.n].status in ('applied', 'merged')
        and (s.state).created is not null
    ), changes as (
      select a.*, case when row_number() over lane = 1 then a.row_json else lag(a.new_row) over lane end as old_row
      from asked a window lane as (partition by a.lane order by a.n)
    )
    select array_agg(c.n order by c.n) as places,
      array_agg(row(c.kind, c.entity_id, c.old_row, c.new_row)::syncline.change order by c.n) as changes into v
    from changes c where c.old_row is not null or c.new_row is not null;
    continue when v.places is null;
    v_allowed := syncline.table_authorize(t.entity_type, syncline.claims(), v.changes);
    if cardinality(v_allowed) is distinct from cardinality(v.places) then
      raise exception 'the authorize function % did not answer for every change', t.authorize;
    end if;
    for i in 1 .. cardinality(v.places) loop
      if not coalesce(v_allowed[i], false) then
        b := syncline.faulted(b, v.places[i], syncline.error('forbidden', 'the change is not allowed'));
      end if;
    end loop;
  end loop;
  return b;
end
$$;

-- Judges a batch, and writes the rows of its registered types.
create function syncline.apply(r syncline.request, b syncline.batch, p_now bigint, p_used int) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
declare
  c_most constant int := 50;
  c_few constant int := 16;
  v_used int := p_used;
  v_decided syncline.batch;
  v_asked syncline.batch;
  v_writes syncline.row_write[];  -- what is still to be written
  v_piece syncline.row_write[];
  v_size int;
  v_refused syncline.refused_write;
begin
  b := syncline.check_columns(b);
  v_decided := syncline.decide_all(r, b, p_now);
  v_asked := syncline.authorized(r, b, v_decided);
  if v_asked.operations is distinct from b.operations then
    b := v_asked;
    v_decided := syncline.decide_all(r, b, p_now);
  end if;
  v_writes := syncline.row_writes(v_decided);
  if v_writes is null then
    return v_decided;
  end if;
  v_used := v_used + 1;
  if syncline.write_rows(r.scope, v_writes) then
    return v_decided;
  end if;

  v_size := greatest(cardinality(v_writes) / 4, c_few);
  while cardinality(v_writes) > 0 loop
    -- A piece may cost four: as a whole, group by group, the search for the field, what stood before the one at fault.
    if v_used + 4 > c_most then
      return syncline.cut(r, b, v_writes[1].group_first, p_now);
    end if;
    v_piece := syncline.between(v_writes, null, v_writes[least(v_size, cardinality(v_writes))].group_first + 1);
    v_used := v_used + 1;
    if syncline.write_rows(r.scope, v_piece) then
      v_writes := syncline.between(v_writes, v_piece[cardinality(v_piece)].group_first + 1, null);
      v_size := v_size * 2;
      continue;
    elsif v_size > c_few then
      v_size := greatest(v_size / 4, c_few);
      continue;
    end if;
    v_used := v_used + 1;
    v_refused := syncline.write_groups(r.scope, v_piece);
    if v_refused.culprit is null then
      v_writes := syncline.between(v_writes, v_piece[cardinality(v_piece)].group_first + 1, null);
      continue;
    end if;
    v_used := v_used + (v_refused.searched)::int;
    v_piece := syncline.between(v_piece, null, v_refused.group_first);
    if cardinality(v_piece) > 0 then
      v_used := v_used + 1;
      -- What could be written a moment ago can be now; if it cannot, another one is at fault, and is found next.
      continue when (syncline.write_groups(r.scope, v_piece)).culprit is not null;
    end if;
    b := syncline.faulted(b, v_refused.culprit, v_refused.error);
    if syncline.concerns_others(b, v_refused) then
      v_decided := syncline.decide_all(r, b, p_now);
      v_writes := syncline.row_writes(v_decided);
    else
      v_decided.states[v_refused.culprit] := b.before[v_refused.culprit];
      v_decided.outcomes[v_refused.culprit] := row('rejected', null, null, null, v_refused.error, null, true)::syncline.outcome;
      v_decided.changed[v_refused.culprit] := false;
      v_decided.plain[v_refused.culprit] := false;
    end if;
    v_writes := syncline.between(v_writes, v_refused.group_first + 1, null);
  end loop;
  return v_decided;
end
$$;

-- Whether a refusal changes what is decided of other operations, or is none for good: then the batch must be judged again.
create function syncline.concerns_others(b syncline.batch, p_refused syncline.refused_write) returns boolean
language sql immutable set search_path = '' as $$
  select not o.alone or o.group_id is not null or (p_refused).error ? 'retry_after_ms'
    or exists (select from unnest((b).operations) d where o.id = any (d.depends_on))
  from unnest((b).operations) o where o.n = (p_refused).culprit
$$;

-- The same for a dry run: everything is tried, and nothing is left of it.
create function syncline.apply_dry(r syncline.request, b syncline.batch, p_now bigint, p_used int) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
begin
  b := syncline.apply(r, b, p_now, p_used + 1);
  raise exception using errcode = 'SYDRY';
exception when sqlstate 'SYDRY' then
  return b;
end
$$;

-- The row writes of the groups from one place, and before another one. The members of a group stand together, so the next place belongs to
-- the same group, which makes no writes any more, or to another one.
create function syncline.between(p_writes syncline.row_write[], p_first int, p_before int) returns syncline.row_write[]
language sql immutable set search_path = '' as $$
  select coalesce(array_agg(w order by w.n), '{}') from unnest(p_writes) w where (p_first is null or w.group_first >= p_first) and (p_before is null or w.group_first < p_before)
$$;

-- A batch of which only what stands before a place is judged: the rest is to be sent again, at once.
create function syncline.cut(r syncline.request, b syncline.batch, p_first int, p_now bigint) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
declare
  d syncline.batch := b;
  v_last constant int := cardinality(b.operations);
  v_later constant syncline.outcome := row('retry', null, null, null,
    syncline.error('not_yet', 'too many operations of the push were refused') || '{"retry_after_ms": 0}', null, false)::syncline.outcome;
begin
  d.operations := b.operations[1:p_first - 1];
  d.known := b.known[1:p_first - 1];
  d.before := b.before[1:p_first - 1];
  d.plain := b.plain[1:p_first - 1];
  if p_first > 1 then
    d := syncline.decide_all(r, d, p_now);
  end if;
  d.operations := b.operations;
  d.known := b.known;
  d.before := b.before;
  d.states := d.states || b.before[p_first:v_last];
  d.outcomes := d.outcomes || array_fill(v_later, array[v_last - p_first + 1]);
  d.changed := d.changed || array_fill(false, array[v_last - p_first + 1]);
  d.plain := d.plain || array_fill(false, array[v_last - p_first + 1]);
  return d;
end
$$;
