-- Push.
--
-- What it promises. A push is one database transaction: each operation's key, effect, ledger row and verdict are committed
-- together or not at all, and with them the device's mark. An error that Postgres raises (40001, 40P01, 55P03, 57014, a killed
-- server) leaves nothing of it. A dry run is a push that is not written: nothing needs to be rolled back.
--
-- How it is fast. Everything that the batch touches is fetched by one statement: keys, entities, applied dots, ledger rows.
-- An operation is `plain` if it is the only one of its entity in the batch, its key is unknown, and it creates what is not
-- there, or patches or deletes a record of which it has seen everything: then no rule of conflicts can apply, its verdict is
-- `applied`, and all plain operations are judged by one statement. The others go through `decide`, one after the other, on
-- records in memory. Whatever was decided is written by at most five statements, whose number does not depend on the batch.
--
-- How concurrent pushes meet. The scope's row is locked (`for update`) before anything of the scope is read, and until the
-- commit. Under READ COMMITTED each statement sees what was committed when it began, so everything read after the lock is
-- what the pushes before have left, and nobody else can write it: pushes of a scope are serial. Reading and checking the
-- request, which needs no table of the scope, happens before the lock. Versions are taken from the locked row, so they are
-- dense and commit in order: a pull, which reads the row and the changes in one statement, never skips one. Only one scope is
-- ever locked, so two pushes cannot deadlock with each other.
--
-- What it does not do. It opens no subtransaction. Registered tables, whose constraints may refuse a write, will need one per
-- group on their slow path; their place is `apply`, where a group's records are known and nothing has been written yet.

create type syncline.known as (
  hash bytea, verdict text, device_id text, sequence bigint, error jsonb, conflict jsonb
);

create type syncline.outcome as (
  status text, first text, device_id text, sequence bigint, error jsonb, conflict jsonb, is_new boolean
);

-- A push in the making. Arrays are indexed by an operation's place; those of entities by the place of its first operation.
create type syncline.batch as (
  operations syncline.operation[], known syncline.known[], before syncline.state[], states syncline.state[],
  plain boolean[], outcomes syncline.outcome[], changed boolean[], forked boolean
);

create type syncline.cursor as (
  version bigint, purged_through bigint, epoch text, entity_types text[]
);

-- A cursor: opaque text on the wire. It gives no access, so it is not signed; a scope is named by its hash.
create function syncline.cursor_text(p_scope text, p_row syncline.scopes, p_version bigint, p_entity_types text[]) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return concat_ws('.', 'p1', p_version, (p_row).purged_through, (p_row).epoch,
    left(encode(sha256(convert_to(p_scope, 'UTF8')), 'hex'), 32), array_to_string(p_entity_types, ','));
end
$$;

-- Reads a cursor of this scope; null if it is not one.
create function syncline.cursor_of(p_scope text, p_text text) returns syncline.cursor
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select row(c.part[1]::bigint, c.part[2]::bigint, c.part[3], string_to_array(c.part[5], ','))::syncline.cursor
    from (select regexp_match(p_text, '^p1\.(\d{1,16})\.(\d{1,16})\.([0-9A-Za-z-]{1,64})\.([0-9a-f]{32})(?:\.([a-z0-9_,]*))?$') as part
          where length(p_text) <= 32768) c
    where c.part[4] = left(encode(sha256(convert_to(p_scope, 'UTF8')), 'hex'), 32) and c.part[1]::bigint <= 9007199254740991);
end
$$;

-- The scope's row, locked; made on first use. Renews its epoch if the database has gone back in time (spec §6): that stays,
-- whatever is answered.
create function syncline.open_scope(r syncline.request, p_cursor syncline.cursor, p_now bigint) returns syncline.scopes
language plpgsql volatile set search_path = '' as $$
declare
  v_scope syncline.scopes;
  v_cluster constant text := syncline.cluster();
begin
  select * into v_scope from syncline.scopes s where s.scope = r.scope for update;
  if not found then
    insert into syncline.scopes (scope, epoch, cluster) values (r.scope, syncline.new_id(p_now), v_cluster) on conflict (scope) do nothing;
    select * into strict v_scope from syncline.scopes s where s.scope = r.scope for update;
  end if;
  if v_scope.cluster <> v_cluster
    or r.epoch = v_scope.epoch and r.mark > (
      select coalesce(max(d.mark), 0) from syncline.devices d where d.scope = r.scope and d.device_id = r.device_id)
    or (p_cursor).epoch = v_scope.epoch and (p_cursor).version > v_scope.head then
    v_scope.epoch := syncline.new_id(p_now);
    v_scope.cluster := v_cluster;
    update syncline.scopes s set epoch = v_scope.epoch, cluster = v_cluster where s.scope = r.scope;
  end if;
  return v_scope;
end
$$;

-- Fetches what the operations touch, and marks the plain ones.
create function syncline.load(r syncline.request, p_operations syncline.operation[], p_forgotten_through bigint) returns syncline.batch
language plpgsql stable set search_path = ''
-- One index lookup per operation and table, whatever the statistics say: a table that was small when the plan was made grows.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_material = off as $$
declare
  b syncline.batch;
begin
  select
    array_agg(t.operation order by t.n), array_agg(t.known order by t.n), array_agg(t.before order by t.n),
    array_agg(t.plain order by t.n), coalesce(bool_or(t.forked), false)
    into b.operations, b.known, b.before, b.plain, b.forked
  from (
    select o.n,
      row(o.n, o.lane, o.alone, o.id, o.key, o.sequence, o.kind, o.entity_type, o.entity_id, o.hash, o.bytes, o.patch, o.fault,
        o.before, o.base, o.at, o.group_id, o.depends_on, o.void,
        coalesce(y.conflict_rule, o.conflict_rule, 'last_writer_wins'), coalesce(y.delete_rule, o.delete_rule, 'update_wins')
        )::syncline.operation as operation,
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
    left join syncline.entities e on e.scope = r.scope and e.entity_type = o.entity_type and e.entity_id = o.entity_id
    left join syncline.operations k on k.scope = r.scope and k.idempotency_key = o.key
    left join syncline.operations a on a.scope = r.scope and a.device_id = r.device_id and a.sequence = o.sequence
      and a.verdict in ('applied', 'merged')
    left join syncline.conflicts c on c.scope = r.scope and c.id = k.conflict_id
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

-- What a known key repeats; the same key with another content reveals nothing and is not stored.
create function syncline.repeat_of(o syncline.operation, k syncline.known, p_device_id text) returns syncline.outcome
language plpgsql immutable set search_path = '' as $$
declare
  v_foreign constant boolean := k.verdict in ('applied', 'merged') and (k.device_id, k.sequence) <> (p_device_id, o.sequence);
begin
  if k.hash <> o.hash then
    return row('rejected', null, null, null,
      syncline.error('idempotency_key_reused', 'the idempotency key was used for another operation'), null, false)::syncline.outcome;
  end if;
  return row('already_processed', k.verdict, case when v_foreign then k.device_id end, case when v_foreign then k.sequence end,
    k.error, k.conflict, false)::syncline.outcome;
end
$$;

-- Whether an operation with this outcome has effect.
create function syncline.is_effective(p_outcome syncline.outcome) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return coalesce((p_outcome).first, (p_outcome).status) in ('applied', 'merged');
end
$$;

-- The object of the ledger and the wire.
create function syncline.ledger_entry(r syncline.request, o syncline.operation, s syncline.state, j syncline.judgement, p_now bigint) returns jsonb
language plpgsql volatile set search_path = '' as $$
begin
  return (
    select jsonb_build_object(
      'id', syncline.new_id(p_now), 'rule', (j).rule, 'result', (j).status, 'entity_type', (o).entity_type, 'entity_id', (o).entity_id,
      'operation_id', (o).id, 'operation', (o).kind, 'device_id', (r).device_id, 'user_id', (r).user_id,
      'our_clock', c.base || jsonb_build_object((r).device_id, greatest((c.base -> (r).device_id)::bigint, (o).sequence)),
      'their_clock', coalesce(syncline.clock_of((s).fields, (s).created, (s).deleted), '{}'), 'their_deleted', (j).their_deleted,
      'decided_at', syncline.moment(p_now), 'fields', (j).fields)
    from (select coalesce(jsonb_object_agg(e.key, e.value) filter (where e.value <> '0'), '{}') as base from jsonb_each((o).base) e) c);
end
$$;

-- Decides one operation on the record as it stands; gives its outcome and the record.
create function syncline.decide_one(r syncline.request, o syncline.operation, s syncline.state, p_now bigint,
  out outcome syncline.outcome, out state syncline.state)
language plpgsql volatile set search_path = '' as $$
declare
  j syncline.judgement;
  v_error jsonb := o.fault;
  v_conflict jsonb;
begin
  state := s;
  if v_error is null then
    j := syncline.judge(s, o, jsonb_build_array(r.device_id, o.sequence, o.at));
    v_error := case j.code
      when 'not_found' then syncline.error('not_found', 'there is no such entity')
      when 'gone' then syncline.error('gone', 'the entity was deleted') end;
  end if;
  if v_error is null and j.status <> 'conflict' and (j.state).created is not null and (j.state).deleted is null
    and j.state is distinct from s then
    v_error := syncline.record_fault((j.state).payload,
      (select y.schema from syncline.entity_types y where y.entity_type = o.entity_type));
  end if;
  if v_error is not null then
    outcome := row('rejected', null, null, null, v_error, null, true);
    return;
  end if;
  if j.rule is not null then
    v_conflict := syncline.ledger_entry(r, o, s, j, p_now);
  end if;
  state := j.state;
  outcome := row(j.status, null, null, null, null, v_conflict, true);
end
$$;

-- Decides the operations that are not plain, in their order: each transaction all or none.
create function syncline.decide(r syncline.request, b syncline.batch, p_now bigint) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
declare
  v_blocked boolean[] := array_fill(false, array[cardinality(b.operations)]);  -- lanes in which nothing more is looked at
  v_without_effect text[] := '{}';
  v_operations constant syncline.operation[] := b.operations;
  v_states syncline.state[] := b.states;
  v_outcomes syncline.outcome[] := b.outcomes;
  v_saved syncline.state[];
  o syncline.operation;
  v_decided record;
  v_first int := 1;
  v_last int;
  v_culprit int;
  v_waits boolean;
  v_voided constant jsonb := syncline.error('voided', 'the operation was withdrawn before it arrived');
  i int;
begin
  while v_first <= cardinality(v_operations) loop
    -- The group: the members of a transaction, or one operation.
    o := v_operations[v_first];
    v_last := v_first;
    while o.group_id is not null and v_last < cardinality(v_operations) and v_operations[v_last + 1].group_id = o.group_id loop
      v_last := v_last + 1;
    end loop;
    if b.plain[v_first] and v_first = v_last then
      v_first := v_last + 1;
      continue;
    end if;

    v_culprit := null;
    for i in v_first .. v_last loop
      if b.known[i].verdict is not null then
        o := v_operations[i];
        v_outcomes[i] := syncline.repeat_of(o, b.known[i], r.device_id);
        if not syncline.is_effective(v_outcomes[i]) then
          v_culprit := coalesce(v_culprit, i);
          v_without_effect := v_without_effect || o.id;
        end if;
        if not syncline.is_effective(v_outcomes[i]) or v_outcomes[i].device_id is not null then
          v_blocked[o.lane] := true;
        end if;
      end if;
    end loop;

    v_waits := false;
    for i in v_first .. v_last loop
      o := v_operations[i];
      if b.known[i].verdict is null and (v_blocked[o.lane] or coalesce(o.depends_on && v_without_effect, false)) then
        v_waits := true;
      end if;
    end loop;

    if v_operations[v_first].void then
      for i in v_first .. v_last loop
        v_outcomes[i] := coalesce(v_outcomes[i], row('rejected', null, null, null, v_voided, null, true)::syncline.outcome);
      end loop;
    elsif v_culprit is null and v_waits then
      for i in v_first .. v_last loop
        v_outcomes[i] := coalesce(v_outcomes[i], row('deferred', null, null, null, null, null, false)::syncline.outcome);
      end loop;
    elsif v_culprit is null then
      v_saved := array_fill(null::syncline.state, array[v_last - v_first + 1]);
      for i in v_first .. v_last loop
        o := v_operations[i];
        v_saved[i - v_first + 1] := v_states[o.lane];
        continue when b.known[i].verdict is not null;
        select * into v_decided from syncline.decide_one(r, o, v_states[o.lane], p_now);
        v_outcomes[i] := v_decided.outcome;
        if not syncline.is_effective(v_outcomes[i]) then
          v_culprit := i;
          exit;
        end if;
        v_states[o.lane] := v_decided.state;
      end loop;
      if v_culprit is not null then
        -- Back to front, so that a record that two members touch is what it was before the first.
        for i in reverse v_culprit .. v_first loop
          v_states[v_operations[i].lane] := v_saved[i - v_first + 1];
          if i <> v_culprit and b.known[i].verdict is null then
            v_outcomes[i] := null;
          end if;
        end loop;
      end if;
    end if;

    if v_culprit is not null then
      for i in v_first .. v_last loop
        v_outcomes[i] := coalesce(v_outcomes[i], row('rejected', null, null, null,
          syncline.error('transaction_failed', 'another operation of the transaction failed')
          || jsonb_build_object('culprit', v_operations[v_culprit].id), null, true)::syncline.outcome);
      end loop;
    end if;

    for i in v_first .. v_last loop
      if not syncline.is_effective(v_outcomes[i]) then
        v_without_effect := v_without_effect || v_operations[i].id;
        v_blocked[v_operations[i].lane] := true;
      end if;
    end loop;
    v_first := v_last + 1;
  end loop;
  b.states := v_states;
  b.outcomes := v_outcomes;
  return syncline.settled(b);
end
$$;

-- Which records differ from before the push in payload, deletion, or any dot or timestamp; with what follows from them.
create function syncline.settled(b syncline.batch) returns syncline.batch
language plpgsql stable set search_path = '' as $$
begin
  select
    array_agg(case when t.differs then row((t.old).version, (t.new).payload, (t.new).fields, (t.new).created, (t.new).deleted,
        syncline.clock_of((t.new).fields, (t.new).created, (t.new).deleted),
        syncline.changed_at_of((t.new).fields, (t.new).created, (t.new).deleted), octet_length((t.new).payload::text))::syncline.state
      else t.new end order by t.n),
    array_agg(t.changed or t.differs order by t.n)
    into b.states, b.changed
  from (
    select o.n, b.states[o.n] as new, b.before[o.n] as old, b.changed[o.n] as changed,
      o.n = o.lane and not b.plain[o.n] and (b.states[o.n]).created is not null and (
        (b.before[o.n]).created is null
        or ((b.states[o.n]).fields, (b.states[o.n]).created, coalesce((b.states[o.n]).deleted, 'null'))
          <> ((b.before[o.n]).fields, (b.before[o.n]).created, coalesce((b.before[o.n]).deleted, 'null'))
        or not syncline.same_value((b.states[o.n]).payload, (b.before[o.n]).payload)) as differs
    from unnest(b.operations) o) t;
  return b;
end
$$;

-- Writes what the push changed and decided.
create function syncline.write(r syncline.request, b syncline.batch, p_head bigint, p_changed bigint, p_now bigint) returns void
language plpgsql volatile set search_path = '' as $$
begin
  if p_changed > 0 then
    insert into syncline.entities (scope, entity_type, entity_id, version, payload, fields, created, deleted, clock, changed_at, bytes, stored_at)
    select r.scope, o.entity_type, o.entity_id, p_head + row_number() over (order by o.n),
      s.payload, s.fields, s.created, s.deleted, s.clock, s.changed_at, s.bytes, p_now
    from unnest(b.operations, b.states, b.changed) as o(n, lane, alone, id, key, sequence, kind, entity_type, entity_id, hash, octets,
        patch, fault, before, base, at, group_id, depends_on, void, conflict_rule, delete_rule,
        version, payload, fields, created, deleted, clock, changed_at, bytes, changed)
      cross join lateral (select o.payload, o.fields, o.created, o.deleted, o.clock, o.changed_at, o.bytes) s
    where o.changed
    on conflict (scope, entity_type, entity_id) do update set version = excluded.version, payload = excluded.payload,
      fields = excluded.fields, created = excluded.created, deleted = excluded.deleted, clock = excluded.clock,
      changed_at = excluded.changed_at, bytes = excluded.bytes, stored_at = excluded.stored_at;
    update syncline.scopes s set head = p_head + p_changed where s.scope = r.scope;
  end if;
  insert into syncline.operations (scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type, entity_id,
    content_hash, verdict, error, conflict_id, decided_at)
  select r.scope, o.key, o.id, r.device_id, o.sequence, o.kind, o.entity_type, o.entity_id, o.hash, o.status, o.error,
    o.conflict ->> 'id', p_now
  from unnest(b.operations, b.outcomes) as o(n, lane, alone, id, key, sequence, kind, entity_type, entity_id, hash, octets,
    patch, fault, before, base, at, group_id, depends_on, void, conflict_rule, delete_rule,
    status, first, device_id, sequence_of, error, conflict, is_new)
  where o.is_new;
  if exists (select from unnest(b.outcomes) t where t.is_new and t.conflict is not null) then
    insert into syncline.conflicts (scope, id, operation_id, entity_type, entity_id, rule, result, decided_at, conflict)
    select r.scope, t.conflict ->> 'id', t.conflict ->> 'operation_id', t.conflict ->> 'entity_type', t.conflict ->> 'entity_id',
      t.conflict ->> 'rule', t.conflict ->> 'result', p_now, t.conflict
    from unnest(b.outcomes) t where t.is_new and t.conflict is not null;
  end if;
  insert into syncline.devices as d (scope, device_id, user_id, mark, forgotten_through)
  values (r.scope, r.device_id, r.user_id, 1, r.forgotten_through)
  on conflict (scope, device_id) do update set mark = d.mark + 1,
    forgotten_through = greatest(d.forgotten_through, excluded.forgotten_through);
end
$$;

-- The results that are told, in the order of the operations: those of an entity are left out if the device can compute it.
-- Gives how many were left out, and whether a record is absent because the answer would pass 1 MiB.
create function syncline.results(r syncline.request, b syncline.batch, p_head bigint, p_cursor syncline.cursor,
  out applied bigint, out results jsonb, out is_short boolean)
language plpgsql stable set search_path = '' as $$
declare
  v_versions bigint[];
  v_left_out boolean[];
  v_too_large int[];
begin
  select array_agg(t.left_out order by t.n), coalesce(count(*) filter (where t.left_out), 0), array_agg(t.version order by t.n)
    into v_left_out, applied, v_versions
  from (
    select o.n,
      bool_and(o.status = 'applied') over (partition by o.lane) and ((o.known_as).version is null
        or coalesce((o.known_as).version <= (p_cursor).version
          and ((p_cursor).entity_types is null or o.entity_type = any ((p_cursor).entity_types)), false)) as left_out,
      case when o.changed and not r.dry_run then p_head + count(*) filter (where o.changed) over (order by o.n) end as version
    from (
      select u.n, u.lane, u.entity_type, (u.outcome).status, u.changed, b.before[u.lane] as known_as
      from (select o.n, o.lane, o.entity_type, b.outcomes[o.n] as outcome, b.changed[o.n] as changed from unnest(b.operations) o) u) o
  ) t;
  results := '[]';
  is_short := false;
  if applied = coalesce(cardinality(b.operations), 0) then
    return;
  end if;
  v_too_large := syncline.beyond_answer(r, b, v_left_out);
  is_short := v_too_large <> '{}';
  select jsonb_agg(
      jsonb_build_object('id', t.id, 'status', (t.outcome).status, 'version', coalesce(t.version, (t.state).version, 0),
        'clock', coalesce((t.state).clock, '{}'), 'deleted', (t.state).created is null or (t.state).deleted is not null)
      || case when (t.outcome).first is null then '{}' else jsonb_build_object('first', (t.outcome).first) end
      || case when (t.outcome).device_id is null then '{}'
        else jsonb_build_object('device_id', (t.outcome).device_id, 'sequence', (t.outcome).sequence) end
      || case when (t.outcome).conflict is null then '{}' else jsonb_build_object('conflict', (t.outcome).conflict) end
      || case when (t.outcome).error is null then '{}' else jsonb_build_object('error', (t.outcome).error) end
      || case when (t.state).created is null or (t.state).deleted is not null or t.n = any (v_too_large) then '{}'
        else jsonb_build_object('record', (t.state).payload) end
      order by t.n) into results
  from (
    select o.n, o.id, b.outcomes[o.n] as outcome, v_versions[o.lane] as version,
      case when r.dry_run then b.before[o.lane] else b.states[o.lane] end as state
    from unnest(b.operations) o where not v_left_out[o.n]) t;
end
$$;

-- The places of the results that go without their record: taken in order, what no longer fits into 1 MiB.
create function syncline.beyond_answer(r syncline.request, b syncline.batch, p_left_out boolean[]) returns int[]
language plpgsql stable set search_path = '' as $$
declare
  v_left bigint := 1048576;
  v_beyond int[] := '{}';
  t record;
begin
  for t in
    select s.n, (s.state).bytes from (
      select o.n, case when r.dry_run then b.before[o.lane] else b.states[o.lane] end as state
      from unnest(b.operations) o where not p_left_out[o.n]) s
    where (s.state).created is not null and (s.state).deleted is null order by s.n
  loop
    if t.bytes <= v_left then
      v_left := v_left - t.bytes;
    else
      v_beyond := v_beyond || t.n;
    end if;
  end loop;
  return v_beyond;
end
$$;

-- POST /v1/push.
create function syncline.push(p_body json) returns json
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan as $$
declare
  v_settings syncline.settings;
  v_now constant bigint := syncline.clock();
  r syncline.request;
  v_problem text;
  v_read record;
  v_about jsonb;
  v_cursor syncline.cursor;
  v_scope syncline.scopes;
  v_device syncline.devices;
  b syncline.batch;
  v_changed bigint;
  v_results record;
begin
  if pg_is_in_recovery() then
    return syncline.problem('unavailable');
  end if;
  select * into strict v_settings from syncline.settings;
  r := syncline.read_head(p_body, true, v_settings);
  if r.problem is not null then
    return syncline.problem(r.problem, r.about);
  end if;
  select * into v_read from syncline.read_operations(r, v_settings, v_now);
  if v_read.about is not null then
    return syncline.problem('invalid_request', v_read.about);
  end if;
  v_problem := syncline.refused(r);
  if v_problem is not null then
    return syncline.problem(v_problem);
  end if;
  if syncline.check_head(r) is not null then
    return syncline.problem('invalid_request', syncline.check_head(r));
  elsif cardinality(v_read.operations) > v_settings.max_operations then
    return syncline.problem('too_many_operations', syncline.limits(v_settings));
  end if;
  v_about := syncline.check_operations(v_read.operations, r.forgotten_through);
  if v_about is not null then
    return syncline.problem('invalid_request', v_about);
  end if;

  v_cursor := syncline.cursor_of(r.scope, r.cursor);
  select * into v_device from syncline.devices d where d.scope = r.scope and d.device_id = r.device_id;
  if v_device.user_id <> r.user_id then
    return syncline.problem('wrong_device');
  end if;
  v_scope := syncline.open_scope(r, v_cursor, v_now);
  select * into v_device from syncline.devices d where d.scope = r.scope and d.device_id = r.device_id;
  if v_device.user_id <> r.user_id then
    return syncline.problem('wrong_device');
  elsif r.epoch is distinct from v_scope.epoch then
    return syncline.problem('server_behind', jsonb_build_object('epoch', v_scope.epoch, 'mark', coalesce(v_device.mark, 0)));
  end if;

  b := syncline.load(r, v_read.operations, coalesce(v_device.forgotten_through, 0));
  if b.forked then
    return syncline.problem('device_forked');
  end if;
  if cardinality(b.operations) > 0 then
    b := syncline.apply_plain(r, b);
    if false = any (b.plain) then
      b := syncline.decide(r, b, v_now);
    end if;
  end if;
  v_changed := coalesce(cardinality(array_positions(b.changed, true)), 0);
  if not r.dry_run then
    perform syncline.write(r, b, v_scope.head, v_changed, v_now);
  end if;
  if v_cursor.epoch <> v_scope.epoch then
    v_cursor := null;
  end if;
  select * into v_results from syncline.results(r, b, v_scope.head, v_cursor);
  perform syncline.answer_with(200);
  return syncline.push_answer(r, v_settings, v_scope, v_cursor, v_changed, v_now, v_results.applied, v_results.results,
    v_results.is_short, v_device.mark);
end
$$;

create function syncline.push_answer(r syncline.request, p_settings syncline.settings, p_scope syncline.scopes, p_cursor syncline.cursor,
  p_changed bigint, p_now bigint, p_applied bigint, p_results jsonb, p_is_short boolean, p_mark bigint) returns json
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select (jsonb_build_object('applied', p_applied, 'results', p_results, 'version', v.head, 'epoch', (p_scope).epoch,
        'server_time', syncline.moment(p_now)) || syncline.limits(p_settings)
      || case when (r).dry_run then '{}' else jsonb_build_object('mark', coalesce(p_mark, 0) + 1) end
      || case when not (r).dry_run and not p_is_short and (p_cursor).version = (p_scope).head
        then jsonb_build_object('cursor', syncline.cursor_text((r).scope, p_scope, v.head, (p_cursor).entity_types)) else '{}' end)::json
    from (select (p_scope).head + case when (r).dry_run then 0 else p_changed end as head) v);
end
$$;
