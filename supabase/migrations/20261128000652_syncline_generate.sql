-- The functions of a registered table. All run with an empty search_path, and with every setting fixed on which the text of a
-- value depends, so that a row gives the same record in every session. Each call is planned for its batch and for the table's size at the
-- moment: one row and 10,000 want different plans.

create function syncline.fixed_settings() returns text
language sql immutable set search_path = '' as $$
  select $x$set search_path = '' set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
    set extra_float_digits = '1' set plan_cache_mode = force_custom_plan $x$
$$;

-- An SQL expression for the record that a row is, from the columns of an alias; where `p_by_field`, columns have the fields' names.
-- Null and absent are one; but the nulls within a column of JSON are its own.
create function syncline.record_expression(t syncline.registered_tables, p_alias text, p_by_field boolean) returns text
language sql stable set search_path = '' as $$
  select concat_ws(' || ',
    case when t.rest_column is not null and not p_by_field
      then format('case when jsonb_typeof(%1$s.%2$I) = ''object'' then syncline.without_nulls(%1$s.%2$I) else ''{}'' end', p_alias, t.rest_column) end,
    'jsonb_strip_nulls((select to_jsonb(x.*) from (select ' || string_agg(
      -- No device may be sent an integer that it cannot keep: it travels as text.
      case when f.value ->> 'json' = 'large_number'
        then format('case when %1$s.%2$I between -9007199254740991 and 9007199254740991 then to_jsonb(%1$s.%2$I) else to_jsonb(%1$s.%2$I::text) end as %3$I',
          p_alias, c.name, f.key)
        else format('%s.%I as %I', p_alias, c.name, f.key) end, ', ' order by f.key) filter (where not c.is_json) || ') x))',
    string_agg(format('case when to_jsonb(%1$s.%2$I) <> ''null'' then jsonb_build_object(%3$L, %1$s.%2$I) else ''{}'' end', p_alias, c.name, f.key), ' || ')
      filter (where c.is_json))
  from jsonb_each(t.fields) f
  cross join lateral (select case when p_by_field then f.key else f.value ->> 'column' end as name, f.value ->> 'json' in ('any', 'object', 'array') as is_json) c
$$;

-- The ids of a batch that the id column can hold; `p_ids` is an expression for an array.
create function syncline.keys_expression(t syncline.registered_tables, p_ids text) returns text
language sql stable set search_path = '' as $$
  select case when t.id_type in ('text', 'character varying') then p_ids
    else format('(select array_agg(i.id::%2$s) from unnest(%1$s) as i(id) where syncline.is_key(%2$L, i.id))::%2$s[]', p_ids, t.id_type) end
$$;

create function syncline.define(p_name text, p_rest text, p_body text) returns void
language plpgsql volatile set search_path = '' as $$
begin
  execute format('create or replace function syncline.%I%s %s as %L', p_name, p_rest, syncline.fixed_settings(), p_body);
end
$$;

-- Reads, and writes.
create function syncline.generate_table(t syncline.registered_tables) returns void
language plpgsql volatile set search_path = '' as $$
declare
  v_prefix constant text := format('table_%s_', t.id);
  v_type constant text := format('syncline.table_%s_fields', t.id);
  v_table constant text := (select format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = t.relation);
  v_mapped constant text := (select format('array[%s]::text[]', string_agg(quote_literal(f.key), ', ')) from jsonb_each(t.fields) f);
  v_at_key constant text := format('t.%I = p_scope and t.%I', t.scope_column, t.id_column);
  v_sets text[];
  v_names text[];
  v_values text[];
begin
  execute format('drop type if exists %s', v_type);
  execute (select format('create type %s as (%s)', v_type, string_agg(format('%I %s', f.key, f.value ->> 'type'), ', ' order by f.key))
    from jsonb_each(t.fields) f);

  -- A statement of its own for the lock: it waits, and what comes after it sees what it waited for.
  perform syncline.define(v_prefix || 'rows', '(p_scope text, p_ids text[], p_lock boolean)
    returns table (entity_id text, row_json jsonb, record jsonb) language plpgsql volatile', format($x$
#variable_conflict use_variable
begin
  if p_lock then
    perform from %1$s t where %2$s = any (%3$s) order by t.%4$I for no key update;
    return;
  end if;
  return query select t.%4$I::text, to_jsonb(t.*), %5$s from %1$s t where %2$s = any (%3$s);
end$x$, v_table, v_at_key, syncline.keys_expression(t, 'p_ids'), t.id_column, syncline.record_expression(t, 't', false)));

  perform syncline.define(v_prefix || 'converted', '(p_records jsonb[]) returns jsonb[] language sql stable', format(
    'select array_agg(case when g.record is not null then (g.record - %s) || (%s) end order by g.n)
     from unnest(p_records) with ordinality as g(record, n) cross join lateral jsonb_populate_record(null::%s, g.record) f',
    v_mapped, syncline.record_expression(t, 'f', true), v_type));

  -- Field by field, so that the one at fault is known.
  perform syncline.define(v_prefix || 'bad_field', '(p_record jsonb) returns text language plpgsql stable', format($x$
declare
  v_field text;
begin
  foreach v_field in array %s loop
    perform jsonb_populate_record(null::%s, jsonb_build_object(v_field, p_record -> v_field));
  end loop;
  return null;
exception when others then
  return v_field;
end$x$, v_mapped, v_type));

  select
    array_agg(format('%1$I = case when g.changed ? %2$L then (g.f).%2$I else t.%1$I end', c.name, f.key) order by f.key),
    array_agg(quote_ident(c.name) order by f.key),
    array_agg(format('case when g.record ? %1$L then (g.f).%1$I else %2$s end', f.key, coalesce(f.value ->> 'default', 'null')) order by f.key)
    into v_sets, v_names, v_values
  from jsonb_each(t.fields) f cross join lateral (select f.value ->> 'column' as name) c
  where not (f.value -> 'generated')::boolean;
  if t.clock_column is not null then
    v_sets := v_sets || format('%I = g.clock', t.clock_column);
    v_names := v_names || quote_ident(t.clock_column);
    v_values := v_values || 'g.clock'::text;
  end if;
  if t.rest_column is not null then
    v_sets := v_sets || format('%I = g.record - %s', t.rest_column, v_mapped);
    v_names := v_names || quote_ident(t.rest_column);
    v_values := v_values || format('g.record - %s', v_mapped);
  end if;
  perform syncline.define(v_prefix || 'put', '(p_scope text, p_ids text[], p_records jsonb[], p_changed jsonb[], p_clocks jsonb[], p_new boolean[])
    returns void language plpgsql volatile', format($x$
#variable_conflict use_variable
begin
  perform syncline.begin_own_writes(%14$L::regclass);
  with given as materialized (
    select g.id::%1$s as key, g.record, g.changed, g.clock, g.is_new, jsonb_populate_record(null::%2$s, g.record) as f
    from unnest(p_ids, p_records, p_changed, p_clocks, p_new) as g(id, record, changed, clock, is_new)
  ), updated as (
    update %3$s t set %4$s from given g where %5$s = g.key and not g.is_new returning t.%6$I as key, %7$s as record
  ), inserted as (
    insert into %3$s as t (%8$I, %6$I%9$s)
    select p_scope, g.key%10$s from given g where g.is_new or not exists (select from %3$s t where %5$s = g.key)
    returning t.%6$I as key, %7$s as record
  )
  insert into syncline.captures (scope, entity_type, entity_id)
  select p_scope, %11$L, g.key::text
  from given g left join (select * from updated union all select * from inserted) w on w.key = g.key
  -- A trigger may have made another row of it, or none.
  where w.key is null or g.record <> w.record and syncline.disagreeing(g.record, (g.record - %12$s) || (%13$s), w.record) is not null;
  perform syncline.end_own_writes();
end$x$, t.id_type, v_type, v_table, case when v_sets is null then format('%1$I = t.%1$I', t.id_column) else array_to_string(v_sets, ', ') end,
    v_at_key, t.id_column, syncline.record_expression(t, 't', false), t.scope_column,
    coalesce(', ' || array_to_string(v_names, ', '), ''), coalesce(', ' || array_to_string(v_values, ', '), ''), t.entity_type, v_mapped,
    syncline.record_expression(t, '(g.f)', true), v_table));

  perform syncline.define(v_prefix || 'drop', '(p_scope text, p_ids text[]) returns void language plpgsql volatile', format($x$
#variable_conflict use_variable
begin
  with gone as (delete from %1$s t where %2$s = any (%3$s) returning t.%4$I as key)
  insert into syncline.captures (scope, entity_type, entity_id)
  select p_scope, %5$L, t.%4$I::text from %1$s t where %2$s = any (%3$s) and not exists (select from gone g where g.key = t.%4$I);
end$x$, v_table, v_at_key, syncline.keys_expression(t, 'p_ids'), t.id_column, t.entity_type));

  -- Writes the clocks of rows that others wrote; gives the rows as their triggers left them.
  perform syncline.define(v_prefix || 'clocks', '(p_scope text, p_ids text[], p_clocks jsonb[])
    returns table (entity_id text, record jsonb) language plpgsql volatile', case when t.clock_column is null then 'begin end' else format($x$
#variable_conflict use_variable
declare
  v_free text[];
  v_clocks jsonb[];
begin
  select array_agg(l.id), array_agg(l.clock) into v_free, v_clocks from (
    select t.%5$I::text as id, g.clock from %1$s t join unnest(p_ids, p_clocks) as g(id, clock) on t.%5$I = g.id::%4$s
    where %3$s = any (%7$s) and t.%2$I is distinct from g.clock for no key update of t skip locked) l;
  perform syncline.begin_own_writes(%1$L::regclass);
  return query update %1$s t set %2$I = g.clock from unnest(v_free, v_clocks) as g(id, clock)
    where %3$s = g.id::%4$s returning t.%5$I::text, %6$s;
  perform syncline.end_own_writes();
end$x$, v_table, t.clock_column, v_at_key, t.id_type, t.id_column, syncline.record_expression(t, 't', false),
    syncline.keys_expression(t, 'p_ids')) end);

  perform syncline.generate_captures(t, v_table);
end
$$;

-- The triggers. A row that was moved to another scope is noted in both.
create function syncline.generate_captures(t syncline.registered_tables, p_table text) returns void
language plpgsql volatile set search_path = '' as $$
declare
  e record;
begin
  for e in select * from (values
    ('insert', 'after insert', 'referencing new table as new_rows', array['new_rows']),
    ('update', 'after update', 'referencing old table as old_rows new table as new_rows', array['old_rows', 'new_rows']),
    ('delete', 'after delete', 'referencing old table as old_rows', array['old_rows']),
    ('truncate', 'before truncate', '', array[p_table])) as v(name, event, tables, sources)
  loop
    perform syncline.define(format('table_%s_on_%s', t.id, e.name), '() returns trigger language plpgsql volatile security definer', format($x$
begin
  if not syncline.is_own_write(tg_relid) then
    insert into syncline.captures (scope, entity_type, entity_id)
    select s.scope, %L, s.id from (%s) s where s.scope is not null and s.id is not null;
  end if;
  return null;
end$x$, t.entity_type, (select string_agg(format('select r.%I as scope, r.%I::text as id from %s r', t.scope_column, t.id_column, source.name), ' union ')
      from unnest(e.sources) as source(name))));
    -- After all other triggers of its kind, by name. Always: a session that turns triggers off writes rows all the same.
    execute format('drop trigger if exists %I on %s', 'zz_syncline_' || e.name, p_table);
    execute format('create trigger %I %s on %s %s for each statement execute function syncline.%I()', 'zz_syncline_' || e.name, e.event, p_table,
      e.tables, format('table_%s_on_%s', t.id, e.name));
    execute format('alter table %s enable always trigger %I', p_table, 'zz_syncline_' || e.name);
  end loop;
end
$$;

-- What chooses among the tables by the entity type. Where there is nothing to choose from, it gives `nothing`.
create function syncline.generate_choice() returns void
language plpgsql volatile set search_path = '' as $$
declare
  c record;
  v_head text;
  v_branches text;
begin
  for c in select * from (values
    ('table_rows', 'rows', 'p_scope text, p_ids text[], p_lock boolean', 'table (entity_id text, row_json jsonb, record jsonb)', 'p_scope, p_ids, p_lock',
      'select null::text, null::jsonb, null::jsonb where false'),
    ('table_clocks', 'clocks', 'p_scope text, p_ids text[], p_clocks jsonb[]', 'table (entity_id text, record jsonb)', 'p_scope, p_ids, p_clocks',
      'select null::text, null::jsonb where false'),
    ('table_converted', 'converted', 'p_records jsonb[]', 'jsonb[]', 'p_records', 'select null::jsonb[]'),
    ('table_bad_field', 'bad_field', 'p_record jsonb', 'text', 'p_record', 'select null::text'),
    ('table_put', 'put', 'p_scope text, p_ids text[], p_records jsonb[], p_changed jsonb[], p_clocks jsonb[], p_new boolean[]', 'void',
      'p_scope, p_ids, p_records, p_changed, p_clocks, p_new', 'select'),
    ('table_drop', 'drop', 'p_scope text, p_ids text[]', 'void', 'p_scope, p_ids', 'select'),
    ('table_authorize', 'authorize', 'p_claims jsonb, p_changes syncline.change[]', 'boolean[]', 'p_claims, p_changes', 'select null::boolean[]'))
    as v(name, part, parameters, result, arguments, nothing)
  loop
    select string_agg(format(E'  if p_entity_type = %L then\n    %s %s(%s);\n  end if;\n', t.entity_type,
        case when c.result like 'table%' then 'return query select * from' when c.result = 'void' then 'perform' else 'return' end,
        case when c.part = 'authorize' then (select format('%I.%I', n.nspname, p.proname) from pg_proc p
            join pg_namespace n on n.oid = p.pronamespace where p.oid = to_regprocedure(t.authorize))
          else format('syncline.table_%s_%s', t.id, c.part) end, c.arguments), '' order by t.entity_type)
      into v_branches
    from syncline.registered_tables t where c.part <> 'authorize' or t.authorize is not null;
    v_head := format('create or replace function syncline.%I(p_entity_type text, %s) returns %s volatile set search_path = '''' ',
      c.name, c.parameters, c.result);
    if v_branches is null then
      execute v_head || format('language sql as %L', c.nothing);
    else
      execute v_head || format('language plpgsql as %L', format(E'begin\n%s%send', v_branches,
        case when c.result like 'table%' or c.result = 'void' then '' else E'  return null;\n' end));
    end if;
  end loop;
  -- Nobody but the functions of this schema calls what was generated.
  for c in
    select p.oid::regprocedure::text as signature from pg_proc p
    where p.pronamespace = 'syncline'::regnamespace and p.proname like 'table\_%'
  loop
    execute format('revoke all on function %s from public, anon, authenticated, service_role, syncline_server', c.signature);
  end loop;
end
$$;

do $$ begin perform syncline.generate_choice(); end $$;
