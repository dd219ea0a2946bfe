-- The operations that are not plain, one after the other in their order, on records in memory: repeated keys, waiting, transactions
-- all or none. `decide` is long because its arrays are: a function of its own for each group would copy them each time.

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
create function syncline.decide_one(r syncline.request, o syncline.operation, s syncline.state, p_now bigint) returns syncline.decided
language plpgsql volatile set search_path = '' as $$
declare
  d syncline.decided;
  j syncline.judgement;
  y syncline.entity_types;
  v_error jsonb := o.fault;
  v_conflict jsonb;
begin
  d.state := s;
  -- The operator's rules go before the app's wishes.
  select * into y from syncline.entity_types t where t.entity_type = o.entity_type;
  o.conflict_rule := coalesce(y.conflict_rule, o.conflict_rule, 'last_writer_wins');
  o.delete_rule := coalesce(y.delete_rule, o.delete_rule, 'update_wins');
  if v_error is null then
    j := syncline.judge(s, o, jsonb_build_array(r.device_id, o.sequence, o.at));
    v_error := case j.code
      when 'not_found' then syncline.error('not_found', 'there is no such entity')
      when 'gone' then syncline.error('gone', 'the entity was deleted') end;
  end if;
  if v_error is null and j.status <> 'conflict' and (j.state).created is not null and (j.state).deleted is null
    and j.state is distinct from s then
    v_error := syncline.record_fault((j.state).payload, y.schema);
  end if;
  if v_error is not null then
    d.outcome := row('rejected', null, null, null, v_error, null, true)::syncline.outcome;
    return d;
  end if;
  if j.rule is not null then
    v_conflict := syncline.ledger_entry(r, o, s, j, p_now);
  end if;
  d.state := j.state;
  d.outcome := row(j.status, null, null, null, null, v_conflict, true)::syncline.outcome;
  return d;
end
$$;

-- Decides the operations that are not plain, in their order: each transaction all or none.
create function syncline.decide(r syncline.request, b syncline.batch, p_now bigint) returns syncline.batch
language plpgsql volatile set search_path = '' as $$
declare
  v_blocked boolean[] := array_fill(false, array[cardinality(b.operations)]);  -- lanes in which nothing more is looked at
  v_without_effect text[] := array[]::text[];
  v_operations constant syncline.operation[] := b.operations;
  v_states syncline.state[] := b.states;
  v_outcomes syncline.outcome[] := b.outcomes;
  v_saved syncline.state[];
  v_after syncline.state[] := array_fill(null::syncline.state, array[cardinality(b.operations)]);
  o syncline.operation;
  v_decided syncline.decided;
  v_first int := 1;
  v_last int;
  v_culprit int;
  v_waits boolean;
  v_voided constant jsonb := syncline.error('voided', 'the operation was withdrawn before it arrived');
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
        v_decided := syncline.decide_one(r, o, v_states[o.lane], p_now);
        v_outcomes[i] := v_decided.outcome;
        if not syncline.is_effective(v_outcomes[i]) then
          v_culprit := i;
          exit;
        end if;
        v_states[o.lane] := v_decided.state;
        v_after[i] := v_decided.state;
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
  b.after := v_after;
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
