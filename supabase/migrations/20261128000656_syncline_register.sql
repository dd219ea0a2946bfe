-- Registering a table for an entity type, and giving it up. Called by whoever owns both, from a migration or by hand.

-- The mapping: field -> column. Without one, every column that has no part of its own is a field of its own name.
create function syncline.map_fields(t syncline.registered_tables, p_fields jsonb, p_read_only text[]) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_fields jsonb;
  v_wrong text;
begin
  if p_fields is null then
    select jsonb_object_agg(a.attname, a.attname) into p_fields from pg_attribute a
    where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
      and a.attname not in (t.id_column, t.scope_column) and a.attname is distinct from t.clock_column and a.attname is distinct from t.rest_column;
  end if;
  select f.key into v_wrong from jsonb_each_text(p_fields) f where syncline.column_of(t.relation, f.value, false) is null limit 1;
  if found then
    raise exception 'the field % is mapped to a column that the table does not have', quote_ident(v_wrong);
  end if;
  select r.name into v_wrong from unnest(p_read_only) as r(name) where not coalesce(p_fields ? r.name, false) limit 1;
  if found then
    raise exception '% is not a field, and so cannot be read-only', quote_ident(v_wrong);
  end if;
  select jsonb_object_agg(f.key, syncline.column_of(t.relation, f.value, f.key = any (p_read_only))) into v_fields from jsonb_each_text(p_fields) f;
  if v_fields is null then
    raise exception 'the table has no column for a field';
  end if;
  return v_fields;
end
$$;

-- Children after parents, whatever the order in which they were registered. A circle ends somewhere: its members are then written
-- in the order of the batch.
create function syncline.rank_tables() returns void
language plpgsql volatile set search_path = '' as $$
begin
  update syncline.registered_tables set rank = 0 where rank <> 0;
  for v_round in 1 .. (select count(*) from syncline.registered_tables) loop
    update syncline.registered_tables t set rank = v_round
    where t.rank = v_round - 1 and exists (
      select from pg_constraint f join syncline.registered_tables o on o.relation = f.confrelid and o.rank = v_round - 1
      where f.contype = 'f' and f.conrelid = t.relation and f.confrelid <> t.relation);
    exit when not found;
  end loop;
end
$$;

-- Registers a table, or registers it again as it is now. Gives how many of its rows devices did not know as they are: each has become
-- a write of the server's.
--
--   p_fields      field -> column; columns that are not in it are none of the devices' business
--   p_rest_column a jsonb column for the fields without a column; without one, such fields are refused
--   p_read_only   fields that only the server sets
--   p_authorize   a function (claims jsonb, changes syncline.change[]) that gives boolean[]: what each change may
create function syncline.register_table(p_entity_type text, p_table regclass, p_id_column text default 'id', p_scope_column text default 'scope',
  p_clock_column text default 'clock', p_fields jsonb default null, p_rest_column text default null, p_read_only text[] default '{}',
  p_authorize regprocedure default null) returns bigint
language plpgsql volatile set search_path = '' set client_min_messages = 'warning' as $$
declare
  t syncline.registered_tables;
  v_faults text[];
begin
  if not coalesce(syncline.is_name(p_entity_type), false) then
    raise exception 'an entity type is 1 to 64 characters of [a-z0-9_]';
  end if;
  perform pg_advisory_xact_lock(hashtext('syncline tables'));
  select * into t from syncline.registered_tables r where r.entity_type = p_entity_type;
  if t.relation <> p_table then
    raise exception 'the entity type % is registered to %: unregister it first', p_entity_type, t.relation;
  end if;
  -- Nobody writes while rows and records are brought together.
  execute format('lock table %s in share row exclusive mode', syncline.qualified(p_table));
  t.entity_type := p_entity_type;
  t.relation := p_table;
  t.id_column := p_id_column;
  t.scope_column := p_scope_column;
  t.clock_column := p_clock_column;
  t.rest_column := p_rest_column;
  t.authorize := p_authorize::text;
  t.id_type := (select format_type(a.atttypid, null) from pg_attribute a where a.attrelid = p_table and a.attname = p_id_column and not a.attisdropped);
  t.fields := syncline.map_fields(t, p_fields, p_read_only);
  select array_agg(f.fault) into v_faults from syncline.table_faults(t) as f(fault);
  if v_faults is not null then
    raise exception '% cannot be registered for %: %', p_table, p_entity_type, array_to_string(v_faults, '; ');
  end if;

  insert into syncline.registered_tables as r (entity_type, relation, id_column, id_type, scope_column, clock_column, rest_column, fields, authorize)
  values (t.entity_type, t.relation, t.id_column, t.id_type, t.scope_column, t.clock_column, t.rest_column, t.fields, t.authorize)
  on conflict (entity_type) do update set id_column = excluded.id_column, id_type = excluded.id_type, scope_column = excluded.scope_column,
    clock_column = excluded.clock_column, rest_column = excluded.rest_column, fields = excluded.fields, authorize = excluded.authorize;
  perform syncline.rank_tables();
  perform syncline.generate_table(r) from syncline.registered_tables r where r.entity_type = p_entity_type;
  perform syncline.generate_choice();
  return syncline.adopt(p_entity_type, t.id is null);
end
$$;

-- Brings rows and records together. Where both are, the row is right. Where there is a record only: at the first registration it
-- becomes a row; later, its row was deleted.
create function syncline.adopt(p_entity_type text, p_is_first boolean) returns bigint
language plpgsql volatile set search_path = '' as $$
declare
  t syncline.registered_tables;
  v_scope text;
  v_record record;
  v_count bigint := 0;
begin
  select * into strict t from syncline.registered_tables r where r.entity_type = p_entity_type;
  execute format('insert into syncline.captures (scope, entity_type, entity_id) select r.%I, %L, r.%I::text from %s r',
    t.scope_column, t.entity_type, t.id_column, syncline.qualified(t.relation));
  for v_scope in select s.scope from syncline.scopes s order by s.scope loop
    perform from syncline.scopes s where s.scope = v_scope for update;
    if not p_is_first then
      insert into syncline.captures (scope, entity_type, entity_id)
      select v_scope, p_entity_type, e.entity_id from syncline.entities e
      where e.scope = v_scope and e.entity_type = p_entity_type and e.deleted is null;
      continue;
    end if;
    select array_agg(e.entity_id order by e.version) as ids, array_agg(e.payload order by e.version) as records,
      array_agg(e.clock order by e.version) as clocks, array_agg('{}'::jsonb) as changed, array_agg(true) as is_new into v_record
    from syncline.entities e
    where e.scope = v_scope and e.entity_type = p_entity_type and e.deleted is null
      and not exists (select from syncline.captures c where c.scope = v_scope and c.entity_type = p_entity_type and c.entity_id = e.entity_id);
    if v_record.ids is not null then
      perform syncline.table_put(p_entity_type, v_scope, v_record.ids, v_record.records, v_record.changed, v_record.clocks, v_record.is_new);
    end if;
  end loop;
  for v_scope in
    select distinct c.scope from syncline.captures c where c.entity_type = p_entity_type and c.fault is null and syncline.is_id(c.scope) order by 1
  loop
    v_count := v_count + (select a.changed from syncline.absorb_scope(v_scope) a);
  end loop;
  return v_count;
end
$$;

-- Gives a table up: it keeps its rows, devices keep their records, and neither hears of the other any more.
create function syncline.unregister_table(p_entity_type text) returns void
language plpgsql volatile set search_path = '' as $$
declare
  t syncline.registered_tables;
  v_scope text;
  v_name text;
begin
  perform pg_advisory_xact_lock(hashtext('syncline tables'));
  select * into t from syncline.registered_tables r where r.entity_type = p_entity_type;
  if not found then
    raise exception 'the entity type % is not registered', p_entity_type;
  end if;
  if exists (select from pg_class c where c.oid = t.relation) then
    execute format('lock table %s in share row exclusive mode', syncline.qualified(t.relation));
    for v_scope in select distinct c.scope from syncline.captures c where c.entity_type = p_entity_type and c.fault is null and syncline.is_id(c.scope) order by 1 loop
      perform syncline.absorb_scope(v_scope);
    end loop;
    foreach v_name in array array['insert', 'update', 'delete', 'truncate'] loop
      execute format('drop trigger if exists %I on %s', 'zz_syncline_' || v_name, syncline.qualified(t.relation));
    end loop;
  end if;
  for v_scope in select distinct c.scope from syncline.captures c where c.entity_type = p_entity_type loop
    delete from syncline.captures c where c.scope = v_scope and c.entity_type = p_entity_type;
  end loop;
  delete from syncline.registered_tables r where r.entity_type = p_entity_type;
  perform syncline.rank_tables();
  perform syncline.generate_choice();
  for v_name in select p.oid::regprocedure::text from pg_proc p
    where p.pronamespace = 'syncline'::regnamespace and p.proname like format('table\_%s\_%%', t.id) loop
    execute 'drop function ' || v_name;
  end loop;
  execute format('drop type if exists syncline.%I', format('table_%s_fields', t.id));
end
$$;
