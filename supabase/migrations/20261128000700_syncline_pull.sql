-- Pull.
--
-- One statement reads the scope's row, the device and the page: in its snapshot the head and the changes belong together, and
-- as versions commit in order, none below the head is missing. No lock is taken, so pulls wait for nobody. Only a scope that was
-- never used, or one whose history must be renewed, is written to, under the lock that pushes take.

-- A page of changes above a version, in one index range scan: at most `p_limit`, and about 1 MiB of records, but at least one.
create function syncline.page(p_scope text, p_after bigint, p_entity_types text[], p_limit bigint,
  out changes jsonb, out last_version bigint, out is_full boolean)
language plpgsql stable set search_path = '' set enable_seqscan = off set enable_bitmapscan = off as $$
begin
  select coalesce(jsonb_agg(
      jsonb_build_object('entity_type', t.entity_type, 'entity_id', t.entity_id, 'version', t.version, 'deleted', t.deleted is not null,
        'clock', t.clock, 'changed_at', case
          -- As `syncline.moment` has it, which a thousand calls would make the dearest part of a page.
          when t.changed_at >= 0 then to_char(timestamp '1970-01-01' + (t.changed_at / 86400000)::int * interval '1 day'
            + (t.changed_at % 86400000) * interval '1 millisecond', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
          else syncline.moment(t.changed_at) end)
      || case when t.deleted is null then jsonb_build_object('record', t.payload) else '{}' end
      order by t.version) filter (where t.fits), '[]'),
    max(t.version) filter (where t.fits),
    coalesce(bool_or(not t.fits), false)
    into changes, last_version, is_full
  from (
    select e.*, row_number() over w = 1
      or row_number() over w <= p_limit and sum(case when e.deleted is null then e.bytes else 0 end) over w <= 1048576 as fits
    from (
      select * from syncline.entities c
      where c.scope = p_scope and c.version > p_after and (p_entity_types is null or c.entity_type = any (p_entity_types))
      order by c.version limit p_limit + 1) e
    window w as (order by e.version)) t;
end
$$;

-- POST /v1/pull.
create function syncline.pull(p_body json) returns json
language plpgsql volatile security definer set search_path = '' set plan_cache_mode = force_generic_plan as $$
declare
  v_settings syncline.settings;
  v_now constant bigint := syncline.clock();
  r syncline.request;
  v_problem text;
  v_filter text[];
  v_cursor syncline.cursor;
  v_cluster text;
  v_is_ahead boolean := false;
  v_more boolean := false;
  v record;
begin
  if pg_is_in_recovery() then
    return syncline.problem('unavailable');
  end if;
  select * into strict v_settings from syncline.settings;
  r := syncline.read_head(p_body, false, v_settings);
  if r.problem is not null then
    return syncline.problem(r.problem, r.about);
  elsif array_position(r.entity_types, null) is not null then
    return syncline.problem('invalid_request',
      syncline.invalid(format('entity_types[%s]', array_position(r.entity_types, null) - 1), 'has the wrong type or form'));
  end if;
  v_problem := syncline.refused(r);
  if v_problem is not null then
    return syncline.problem(v_problem);
  elsif syncline.check_head(r) is not null then
    return syncline.problem('invalid_request', syncline.check_head(r));
  end if;

  v_cursor := syncline.cursor_of(r.scope, r.cursor);
  v_cluster := syncline.cluster();
  if r.entity_types is not null then
    select coalesce(array_agg(t.name order by t.name collate "C"), '{}') into v_filter from (select distinct u.name from unnest(r.entity_types) as u(name)) t;
  end if;
  -- Direct writes first; but no new version may hide that a cursor is ahead of the head.
  if exists (select from syncline.captures c where c.scope = r.scope and c.fault is null)
    and not exists (select from syncline.scopes s where s.scope = r.scope and s.epoch = v_cursor.epoch and s.head < v_cursor.version) then
    v_more := (select a.has_more from syncline.absorb_scope(r.scope, 1) a);
  end if;
  loop
    select s as scope, coalesce(d.mark, 0) as mark, d.user_id, usable.yes as usable, p.* into v
    from syncline.scopes s
    left join syncline.devices d on d.scope = r.scope and d.device_id = r.device_id
    cross join lateral (select coalesce(v_cursor.epoch = s.epoch and v_cursor.entity_types is not distinct from v_filter
      and s.purged_through <= greatest(v_cursor.version, v_cursor.purged_through), false) as yes) usable
    cross join lateral syncline.page(r.scope, case when usable.yes then v_cursor.version else 0 end, v_filter, least(r.page, 1000)) p
    where s.scope = r.scope;

    if v.user_id <> r.user_id then
      return syncline.problem('wrong_device');
    end if;
    v_is_ahead := v_is_ahead or coalesce(v_cursor.epoch = (v.scope).epoch and v_cursor.version > (v.scope).head, false);
    exit when (v.scope).cluster = v_cluster and not v_is_ahead
      and not coalesce(r.epoch = (v.scope).epoch and r.mark > v.mark, false);
    v.scope := syncline.open_scope(r, v_cursor, v_now);
    exit when v_is_ahead;
  end loop;
  if v_is_ahead or r.epoch <> (v.scope).epoch or r.epoch is null and r.mark > v.mark then
    return syncline.problem('server_behind', jsonb_build_object('epoch', (v.scope).epoch, 'mark', v.mark));
  end if;
  perform syncline.answer_with(200);
  return json_build_object(
    'changes', v.changes,
    'cursor', syncline.cursor_text(r.scope, v.scope, case when v.is_full then v.last_version else (v.scope).head end, v_filter),
    'epoch', (v.scope).epoch, 'has_more', v.is_full or v_more, 'reset', r.cursor is not null and not v.usable);
end
$$;
