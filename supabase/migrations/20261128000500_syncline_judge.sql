-- The rules of docs/conflicts.md on one record and one operation: values in, values out. Nothing here reads or writes a table.

-- What the server keeps of an entity. `version` is null while there is none.
create type syncline.state as (
  version bigint, payload jsonb, fields jsonb, created jsonb, deleted jsonb, clock jsonb, changed_at bigint, bytes int
);

-- What the rules say: `status` applied, merged, conflict, or rejected with `code`; the record from now on; and for the ledger the
-- rule, whether the record was a tombstone, and the fields in conflict.
create type syncline.judgement as (
  status text, code text, state syncline.state, rule text, their_deleted boolean, fields jsonb
);

-- What last set a field.
create function syncline.setter(p_state syncline.state, p_field text) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return coalesce((p_state).fields -> p_field, (p_state).created);
end
$$;

-- A field of a ledger entry. A value that is absent was removed, or never there.
create function syncline.dispute(s syncline.state, o syncline.operation, p_field text, p_winner text) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_object_agg(v.name, v.value) filter (where v.value <> 'null'), '{}')
      || jsonb_build_object('winner', p_winner)
    from (values
      ('base', o.before -> p_field),
      ('ours', o.patch -> p_field),
      ('theirs', case when s.deleted is null then s.payload -> p_field end)) as v(name, value));
end
$$;

-- Sets the fields of a patch as a write, or removes those that are null.
create function syncline.patched(s syncline.state, p_patch jsonb, p_write jsonb) returns syncline.state
language plpgsql immutable set search_path = '' as $$
begin
  s.payload := syncline.without_nulls(s.payload || p_patch);
  s.fields := s.fields || (select coalesce(jsonb_object_agg(k.key, p_write), '{}') from jsonb_object_keys(p_patch) as k(key));
  return s;
end
$$;

-- A record that a write created.
create function syncline.created(p_patch jsonb, p_write jsonb) returns syncline.state
language plpgsql immutable set search_path = '' as $$
begin
  return row(null, syncline.without_nulls(p_patch), '{}'::jsonb, p_write, null, null, null, null)::syncline.state;
end
$$;

-- Judges an operation with its dot and timestamp (`p_write`) on a record (spec §4, rules 3 to 6).
create function syncline.judge(s syncline.state, o syncline.operation, p_write jsonb) returns syncline.judgement
language plpgsql immutable set search_path = '' as $$
declare
  j syncline.judgement;
begin
  if s.created is null then
    if o.kind = 'update' then
      j.status := 'rejected';
      j.code := case when o.base = '{}' then 'not_found' else 'gone' end;
    else
      j.status := 'applied';
      j.state := case when o.kind = 'create' then syncline.created(o.patch, p_write) else s end;
    end if;
    return j;
  elsif s.deleted is null then
    return case when o.kind = 'delete' then syncline.judge_delete(s, o, p_write) else syncline.judge_patch(s, o, p_write) end;
  elsif o.kind = 'delete' then
    j.status := 'applied';
    j.state := s;
    return j;
  end if;
  return syncline.judge_on_tombstone(s, o, p_write);
end
$$;

-- Rules 4 and 5: an update of a live record, or a create that meets one.
create function syncline.judge_patch(s syncline.state, o syncline.operation, p_write jsonb) returns syncline.judgement
language plpgsql immutable set search_path = '' as $$
declare
  j syncline.judgement;
  f record;
  v_ours jsonb := '{}'::jsonb;
  v_later jsonb := '{}'::jsonb;
  v_setter jsonb;
  v_winner text;
begin
  j.fields := '{}';
  for f in select p.key, p.value from jsonb_each(o.patch) p loop
    v_setter := syncline.setter(s, f.key);
    if syncline.covers(o.base, v_setter) then
      v_ours := v_ours || jsonb_build_object(f.key, f.value);
    elsif syncline.same_value(s.payload -> f.key, f.value) then
      -- If theirs is the later one, nothing differs: a dot copied from the create would look like a change.
      if syncline.is_later(p_write, v_setter) then
        v_later := v_later || jsonb_build_object(f.key, p_write);
      end if;
    else
      v_winner := case o.conflict_rule
        when 'last_writer_wins' then case when syncline.is_later(p_write, v_setter) then 'ours' else 'theirs' end
        when 'server_wins' then 'theirs'
        when 'client_wins' then 'ours'
        else 'none' end;
      if v_winner = 'ours' then
        v_ours := v_ours || jsonb_build_object(f.key, f.value);
      end if;
      j.fields := j.fields || jsonb_build_object(f.key, syncline.dispute(s, o, f.key, v_winner));
    end if;
  end loop;
  j.state := syncline.patched(s, v_ours, p_write);
  j.state.fields := (j.state).fields || v_later;
  if j.fields <> '{}' then
    j.rule := o.conflict_rule;
  end if;
  return syncline.accepted(j, s, o);
end
$$;

-- Rule 6, a delete of a live record. A removed field counts as well: its removal is a write.
create function syncline.judge_delete(s syncline.state, o syncline.operation, p_write jsonb) returns syncline.judgement
language plpgsql immutable set search_path = '' as $$
declare
  j syncline.judgement;
  v_winner text := case when o.conflict_rule = 'manual' then 'none' when o.delete_rule = 'delete_wins' then 'ours' else 'theirs' end;
  v_unseen text[];
begin
  select array_agg(n.name) into v_unseen
  from (select jsonb_object_keys(s.payload) as name union select jsonb_object_keys(s.fields)) n
  where not syncline.covers(o.base, syncline.setter(s, n.name));
  -- A record that never had a field counts as one field set by its create.
  if v_unseen is null and (s.fields <> '{}' or s.payload <> '{}' or syncline.covers(o.base, s.created)) then
    j.state := s;
    j.state.deleted := p_write;
    j.fields := '{}';
    return syncline.accepted(j, s, o);
  end if;
  select coalesce(jsonb_object_agg(n.name, syncline.dispute(s, o, n.name, v_winner)), '{}') into j.fields from unnest(v_unseen) as n(name);
  j.rule := case when o.conflict_rule = 'manual' then 'manual' else o.delete_rule end;
  j.state := s;
  if v_winner = 'ours' then
    j.state.deleted := p_write;
  end if;
  return syncline.accepted(j, s, o);
end
$$;

-- Rules 3, 4 and 6: a create or an update that meets a tombstone.
create function syncline.judge_on_tombstone(s syncline.state, o syncline.operation, p_write jsonb) returns syncline.judgement
language plpgsql immutable set search_path = '' as $$
declare
  j syncline.judgement;
  v_winner text := case when o.conflict_rule = 'manual' then 'none' when o.delete_rule = 'delete_wins' then 'theirs' else 'ours' end;
begin
  j.fields := '{}';
  if syncline.covers(o.base, s.deleted) then
    if o.kind = 'update' then
      j.status := 'rejected';
      j.code := 'gone';
      return j;
    end if;
    j.state := syncline.created(o.patch, p_write);
    return syncline.accepted(j, s, o);
  end if;
  j.state := s;
  if v_winner = 'ours' then
    j.state := syncline.patched(s, o.patch, p_write);
    j.state.deleted := null;
  end if;
  select coalesce(jsonb_object_agg(k.key, syncline.dispute(s, o, k.key, v_winner)), '{}') into j.fields from jsonb_object_keys(o.patch) as k(key);
  j.rule := case when o.conflict_rule = 'manual' then 'manual' else o.delete_rule end;
  return syncline.accepted(j, s, o);
end
$$;

-- `applied` if the operation has seen all of the record and nothing is disputed, else `merged`; in a `manual` type, `conflict`.
create function syncline.accepted(j syncline.judgement, s syncline.state, o syncline.operation) returns syncline.judgement
language plpgsql immutable set search_path = '' as $$
begin
  j.their_deleted := s.deleted is not null;
  if j.rule = 'manual' then
    j.status := 'conflict';
    j.state := s;
  elsif j.rule is not null or not syncline.covers_clock(o.base, syncline.clock_of(s.fields, s.created, s.deleted)) then
    j.status := 'merged';
  else
    j.status := 'applied';
  end if;
  return j;
end
$$;

-- An error of one operation.
create function syncline.error(p_code text, p_message text) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return jsonb_build_object('code', p_code, 'message', p_message);
end
$$;

-- Why a record may not become what a write would make of it; null if it may.
create function syncline.record_fault(p_payload jsonb, p_schema jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  if octet_length(p_payload::text) > 1048576 and syncline.compact_bytes(p_payload) > 1048576 then
    return syncline.error('record_too_large', 'the record would be larger than 1048576 bytes');
  end if;
  return case when p_schema is not null then syncline.schema_error(p_schema, p_payload) end;
end
$$;
