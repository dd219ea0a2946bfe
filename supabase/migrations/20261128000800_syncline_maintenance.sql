-- What the operator calls: retention, a new epoch after a restore, the rules of entity types, the ledger.

-- Drops what nobody can ask for any more in one scope: verdicts that are old enough and forgotten by their device, and tombstones
-- that are old enough. Cursors older than those tombstones get a `reset`. Pushes of the scope wait only for the tombstones: a
-- verdict that is due has no reader left.
create function syncline.purge(p_scope text, out operations bigint, out tombstones bigint)
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_settings syncline.settings;
  v_now constant bigint := syncline.clock();
  v_before bigint;
  v_through bigint;
begin
  select * into strict v_settings from syncline.settings;
  delete from syncline.operations o using syncline.devices d
  where o.scope = p_scope and d.scope = p_scope and d.device_id = o.device_id and o.sequence <= d.forgotten_through
    and o.decided_at < v_now - v_settings.keys_kept_days * 86400000::bigint;
  get diagnostics operations = row_count;
  tombstones := 0;
  v_before := v_now - v_settings.tombstones_kept_days * 86400000::bigint;
  if exists (select from syncline.entities e where e.scope = p_scope and e.deleted is not null and e.stored_at < v_before) then
    perform from syncline.scopes s where s.scope = p_scope for update;
    with gone as (
      delete from syncline.entities e where e.scope = p_scope and e.deleted is not null and e.stored_at < v_before
      returning e.version)
    select count(*), max(g.version) into tombstones, v_through from gone g;
    update syncline.scopes s set purged_through = v_through where s.scope = p_scope and s.purged_through < v_through;
  end if;
end
$$;

-- The same for all scopes, one after the other, in one transaction.
create function syncline.purge_all(out operations bigint, out tombstones bigint)
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_scope text;
  v_purged record;
begin
  operations := 0;
  tombstones := 0;
  for v_scope in select s.scope from syncline.scopes s order by s.scope loop
    select * into v_purged from syncline.purge(v_scope);
    operations := operations + v_purged.operations;
    tombstones := tombstones + v_purged.tombstones;
  end loop;
end
$$;

-- Gives one scope, or every one, a new epoch: the operator says that the database was restored. Devices then send again what
-- they keep, and pull from the start.
create function syncline.renew_epoch(p_scope text) returns void
language sql volatile security definer set search_path = '' as $$
  update syncline.scopes s set epoch = syncline.new_id(syncline.clock()), cluster = syncline.cluster() where s.scope = p_scope
$$;

create function syncline.renew_epochs() returns bigint
language plpgsql volatile security definer set search_path = '' as $$
declare
  v_scope text;
  v_count bigint := 0;
begin
  for v_scope in select s.scope from syncline.scopes s order by s.scope loop
    perform syncline.renew_epoch(v_scope);
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;

-- Puts the operator's rules for entity types in place of those before: the object that `syncline serve --config` has as `types`.
create function syncline.configure_types(p_types jsonb) returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
  delete from syncline.entity_types;
  insert into syncline.entity_types (entity_type, conflict_rule, delete_rule, schema)
  select t.name, t.rules ->> 'conflict_rule', t.rules ->> 'delete_rule', nullif(t.rules -> 'schema', 'null')
  from jsonb_each(p_types) as t(name, rules);
end
$$;

-- A scope's ledger, oldest entry first, each as on the wire.
create function syncline.ledger(p_scope text) returns setof jsonb
language sql stable security definer set search_path = '' as $$
  select c.conflict from syncline.conflicts c where c.scope = p_scope order by c.decided_at, c.id
$$;
