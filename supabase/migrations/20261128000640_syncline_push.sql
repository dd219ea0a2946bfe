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
-- commit. (The device is looked up before as well, so that nobody renews an epoch in the name of somebody else's device.)
-- Under READ COMMITTED each statement sees what was committed when it began, so everything read after the lock is what the
-- pushes before have left, and nobody else can write it: pushes of a scope are serial. Reading and checking the request, which
-- needs no table of the scope, happens before the lock. Versions are taken from the locked row, so they are dense and commit in
-- order: a pull, which reads the row and the changes in one statement, never skips one. Only one scope is ever locked, so two
-- pushes cannot deadlock with each other; rows of registered tables, which others write too, are locked after it.
--
-- What it does not do. It opens no subtransaction, because nothing that it writes can be refused. Registered tables, whose
-- constraints may refuse a write, need some: where they are concerned, `apply` takes the place of `decide_all`, and writes their
-- rows while it decides. Before that, `absorb` makes what others wrote to them the server's writes.

-- Writes what the push changed and decided.
create function syncline.write(r syncline.request, b syncline.batch, p_head bigint, p_changed bigint, p_now bigint) returns void
language plpgsql volatile set search_path = '' as $$
begin
  if p_changed > 0 then
    insert into syncline.entities (scope, entity_type, entity_id, version, payload, fields, created, deleted, clock, changed_at, bytes, stored_at)
    select r.scope, o.entity_type, o.entity_id, p_head + row_number() over (order by o.n),
      o.payload, o.fields, o.created, o.deleted, o.clock, o.changed_at, o.bytes, p_now
    from unnest(b.operations, b.states, b.changed) as o(n, lane, alone, id, key, sequence, kind, entity_type, entity_id, hash, octets,
        patch, fault, before, base, at, group_id, depends_on, void, conflict_rule, delete_rule,
        version, payload, fields, created, deleted, clock, changed_at, bytes, changed)
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
  results := '[]';
  is_short := false;
  applied := coalesce(cardinality(b.operations), 0);
  -- Mostly the device can compute all of it.
  if applied = 0 or not false = any (b.plain)
    and (b.newest is null or b.newest <= (p_cursor).version and (p_cursor).entity_types is null) then
    return;
  end if;
  select array_agg(t.left_out order by t.n), count(*) filter (where t.left_out), array_agg(t.version order by t.n)
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
  if applied = cardinality(b.operations) then
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
  v_beyond int[] := array[]::int[];
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
  v_absorbed record;
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

  select * into v_absorbed from syncline.absorb(r.scope, v_scope.head, v_now, v_read.operations);
  v_scope.head := v_absorbed.head;
  b := syncline.load(r, v_read.operations, coalesce(v_device.forgotten_through, 0));
  if b.forked then
    return syncline.problem('device_forked');
  end if;
  if cardinality(b.operations) > 0 then
    b := case
      when v_absorbed.used = 0 then syncline.decide_all(r, b, v_now)
      when r.dry_run then syncline.apply_dry(r, b, v_now, v_absorbed.used)
      else syncline.apply(r, b, v_now, v_absorbed.used) end;
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
