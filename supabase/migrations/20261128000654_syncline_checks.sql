-- What a table must be to be registered, and whether it still is.

create function syncline.qualified(p_relation regclass) returns text
language sql stable set search_path = '' as $$
  select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = p_relation
$$;

-- What a JSON value of a column's type is: `large_number` may also be a text, as devices cannot keep every number of it.
create function syncline.json_of_type(p_type oid) returns text
language sql stable set search_path = '' as $$
  select case
    when t.typtype = 'd' then syncline.json_of_type(t.typbasetype)
    when t.typname = 'bool' then 'boolean'
    when t.typname in ('int2', 'int4') then 'number'
    when t.typname in ('int8', 'numeric', 'float4', 'float8') then 'large_number'
    when t.typname in ('json', 'jsonb') then 'any'
    when t.typcategory = 'A' then 'array'
    when t.typtype = 'c' then 'object'
    else 'string' end
  from pg_type t where t.oid = p_type
$$;

-- A column as `registered_tables.fields` describes it; null if there is no such column.
create function syncline.column_of(p_relation regclass, p_column text, p_read_only boolean) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('column', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'json', syncline.json_of_type(a.atttypid),
    'read_only', p_read_only or g.generated, 'generated', g.generated,
    'default', case
      when a.attidentity = 'd' then format('nextval(%L::regclass)', pg_get_serial_sequence(syncline.qualified(p_relation), a.attname))
      when not g.generated then pg_get_expr(d.adbin, d.adrelid) end)
  from pg_attribute a
  cross join lateral (select a.attgenerated <> '' or a.attidentity = 'a' as generated) g
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = p_relation and a.attname = p_column and a.attnum > 0 and not a.attisdropped
$$;

-- Makes the one policy that Syncline takes for the scope check, and turns row level security on.
create function syncline.scope_policy(p_table regclass, p_scope_column text default 'scope') returns void
language plpgsql volatile set search_path = '' as $$
begin
  execute format('alter table %s enable row level security', syncline.qualified(p_table));
  execute format('create policy syncline_scope on %s to authenticated using (%2$I = any ((select syncline.allowed_scopes())::text[]))
    with check (%2$I = any ((select syncline.allowed_scopes())::text[]))', syncline.qualified(p_table), p_scope_column);
  grant execute on function syncline.allowed_scopes() to authenticated;
end
$$;

-- Policies that bind those who push, beyond the scope check. Policies of other roles are none of Syncline's business. Without
-- row level security, and with it but without any policy (then Syncline is the only door), nothing more is said.
create function syncline.policy_faults(t syncline.registered_tables) returns setof text
language sql stable set search_path = '' as $$
  with form as (
    select replace(pg_get_expr(f.polqual, f.polrelid), 'scope_of_row', quote_ident(t.scope_column)) as expression
    from pg_policy f where f.polrelid = 'syncline.scope_form'::regclass
  ), policies as (
    select p.polname, p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) = f.expression as shows_scope,
      pg_get_expr(p.polwithcheck, p.polrelid) is null or pg_get_expr(p.polwithcheck, p.polrelid) = f.expression as takes_scope
    from pg_policy p join pg_class c on c.oid = p.polrelid and c.relrowsecurity cross join form f
    where p.polrelid = t.relation
      and exists (select from unnest(p.polroles) as r(id)
        where r.id = 0 or exists (select from pg_roles a where a.rolname in ('anon', 'authenticated') and pg_has_role(a.oid, r.id, 'member')))
  )
  select format('its policy %I says more than the scope check, and Syncline passes it by: name an authorize function, or replace the policy by that of syncline.scope_policy()', p.polname)
  from policies p where t.authorize is null and not (p.polcmd = '*' and p.polpermissive and coalesce(p.shows_scope, false) and p.takes_scope)
  union all
  select format('its policy %I may show less than the scope, and a device gets whole scopes: select by the expression of syncline.scope_policy(), or use another scope', p.polname)
  from policies p where t.authorize is not null and p.polcmd in ('r', '*') and not coalesce(p.shows_scope, false)
  union all
  select 'its policies show no row, and a device gets whole scopes: add that of syncline.scope_policy(), at least for select'
  where t.authorize is not null and exists (select from policies)
    and not exists (select from policies p where p.polcmd in ('r', '*') and p.polpermissive)
  union all
  select format('the rights on its column %I are its own, and Syncline passes them by: name an authorize function', a.attname)
  from pg_attribute a where t.authorize is null and a.attrelid = t.relation and a.attacl is not null and not a.attisdropped
  union all
  select 'it forces row level security on its owner, and so on Syncline'
  from pg_class c where c.oid = t.relation and c.relforcerowsecurity
$$;

-- Keys that would let a scope learn of another one: what is unique, or referred to, must be so within a scope. An id of 122 random
-- bits is let pass: it cannot be guessed.
create function syncline.key_faults(t syncline.registered_tables) returns setof text
language sql stable set search_path = '' as $$
  with names as (
    select c.attnum as scope, i.attnum as id, i.atttypid = 'uuid'::regtype as is_random
    from pg_attribute c, pg_attribute i
    where c.attrelid = t.relation and c.attname = t.scope_column and i.attrelid = t.relation and i.attname = t.id_column
  ), keys as (
    select x.indexrelid::regclass as name, array(select k.n from unnest(x.indkey[0:x.indnkeyatts - 1]) as k(n) order by k.n) as columns,
      x.indisunique and x.indisvalid and x.indimmediate and x.indpred is null and x.indexprs is null as is_plain
    from pg_index x where x.indrelid = t.relation and (x.indisunique or x.indisexclusion)
  )
  select format('it has no primary or unique key over (%I, %I), nor over %2$I alone', t.scope_column, t.id_column)
  from names n where not exists (select from keys k where k.is_plain and k.columns in (array[n.id], array(select c.n from unnest(array[n.scope, n.id]) as c(n) order by 1)))
  union all
  select format('its key over %I alone lets scopes learn of each other''s ids, unless they are of type uuid: put %I into the key', t.id_column, t.scope_column)
  from names n where not n.is_random and exists (select from keys k where k.columns = array[n.id])
  union all
  select format('its key %s is not within a scope: put %I into it', k.name, t.scope_column)
  from names n, keys k where n.scope <> all (k.columns) and k.columns <> array[n.id]
  union all
  select format('the foreign key %I between registered tables does not hold the scope: put it into both sides', f.conname)
  from pg_constraint f
  join syncline.registered_tables o on o.relation = case when f.conrelid = t.relation then f.confrelid else f.conrelid end
    and (o.relation <> t.relation)
  cross join lateral (select case when f.conrelid = t.relation then t.scope_column else o.scope_column end as here,
    case when f.confrelid = t.relation then t.scope_column else o.scope_column end as there) s
  where f.contype = 'f' and t.relation in (f.conrelid, f.confrelid)
    and not exists (select from unnest(f.conkey, f.confkey) as k(here, there)
      join pg_attribute h on h.attrelid = f.conrelid and h.attnum = k.here and h.attname = s.here
      join pg_attribute r on r.attrelid = f.confrelid and r.attnum = k.there and r.attname = s.there)
  union all
  select format('the foreign key %I to itself does not hold the scope: put it into both sides', f.conname)
  from names n, pg_constraint f
  where f.contype = 'f' and f.conrelid = t.relation and f.confrelid = t.relation
    and not exists (select from unnest(f.conkey, f.confkey) as k(here, there) where k.here = n.scope and k.there = n.scope)
  union all
  -- Such an update cannot be told from our own statement.
  select format('the foreign key %I to itself acts on updates', f.conname)
  from pg_constraint f where f.contype = 'f' and f.conrelid = t.relation and f.confrelid = t.relation and f.confupdtype not in ('a', 'r')
$$;

-- Whether a type's JSON is not what it can be read from, or depends on the session.
create function syncline.is_unfit(p_type oid) returns boolean
language sql stable set search_path = '' as $$
  select case
    when t.typtype = 'd' then t.typnotnull or syncline.is_unfit(t.typbasetype)
    when t.typcategory = 'A' then syncline.is_unfit(t.typelem)
    else t.typtype = 'p' or t.typname ~ '^(money|oid|xid8?|cid|tid|reg[a-z]+)$'
      or exists (select from pg_cast c where c.castsource = t.oid and c.casttarget = 'json'::regtype and c.castmethod = 'f') end
  from pg_type t where t.oid = p_type
$$;

create function syncline.column_faults(t syncline.registered_tables) returns setof text
language sql stable set search_path = '' as $$
  with columns as (
    select a.attname as name, a.atttypid as type, a.attnotnull, a.attgenerated, a.attidentity, a.atthasdef
    from pg_attribute a where a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
  )
  select format('it has no column %I', n.name)
  from unnest(array[t.id_column, t.scope_column, t.clock_column, t.rest_column]) as n(name)
  where n.name is not null and not exists (select from columns c where c.name = n.name)
  union all
  select case
    when c.name = t.id_column and c.type not in ('text'::regtype, 'varchar'::regtype, 'uuid'::regtype, 'bigint'::regtype, 'integer'::regtype)
    then format('its id column %I is not text, varchar, uuid, bigint or integer', c.name)
    when c.name = t.scope_column and c.type <> 'text'::regtype then format('its scope column %I is not text', c.name)
    when c.name in (t.clock_column, t.rest_column) and c.type <> 'jsonb'::regtype then format('its column %I is not jsonb', c.name)
    when c.name in (t.id_column, t.scope_column) and not c.attnotnull then format('its column %I may be null', c.name)
    else format('the values of its column %I are generated', c.name) end
  from columns c
  where c.name = t.id_column and c.type not in ('text'::regtype, 'varchar'::regtype, 'uuid'::regtype, 'bigint'::regtype, 'integer'::regtype)
    or c.name = t.scope_column and c.type <> 'text'::regtype
    or c.name in (t.clock_column, t.rest_column) and c.type <> 'jsonb'::regtype
    or c.name in (t.id_column, t.scope_column) and not c.attnotnull
    or c.name in (t.id_column, t.scope_column, t.clock_column, t.rest_column) and (c.attgenerated <> '' or c.attidentity = 'a')
  union all
  select format('the type %s of its column %I cannot travel as JSON and back', format_type(c.type, null), c.name)
  from columns c join jsonb_each(t.fields) f on f.value ->> 'column' = c.name where syncline.is_unfit(c.type)
  union all
  select format('its column %I must have a value, has no default, and no field is mapped to it', c.name)
  from columns c
  where c.attnotnull and not c.atthasdef and c.attgenerated = '' and c.attidentity = ''
    and c.name not in (t.id_column, t.scope_column) and c.name is distinct from t.clock_column and c.name is distinct from t.rest_column
    and not exists (select from jsonb_each(t.fields) f where f.value ->> 'column' = c.name)
  union all
  select format('the name %I is longer than a column''s may be', f.key) from jsonb_each(t.fields) f where octet_length(f.key) > 63 or f.key = ''
  union all
  select format('two fields are mapped to the column %I', f.value ->> 'column') from jsonb_each(t.fields) f group by f.value ->> 'column' having count(*) > 1
  union all
  select format('the column %I has a part of its own and cannot be a field', f.value ->> 'column')
  from jsonb_each(t.fields) f where f.value ->> 'column' in (t.id_column, t.scope_column, t.clock_column, t.rest_column)
$$;

-- Every reason why a table cannot be registered.
create function syncline.table_faults(t syncline.registered_tables) returns setof text
language sql stable set search_path = '' as $$
  select 'it is not an ordinary, lasting table without partitions, inheritance and rules'
  from pg_class c
  where c.oid = t.relation and (c.relkind <> 'r' or c.relpersistence <> 'p' or c.relispartition or c.relhasrules
    or exists (select from pg_inherits i where t.relation in (i.inhrelid, i.inhparent)))
  union all
  select format('Syncline''s owner %I may not %s its rows', current_user, w.word)
  from unnest(array['select', 'insert', 'update', 'delete']) as w(word) where not has_table_privilege(current_user, t.relation, w.word)
  union all
  select format('its authorize function %s is gone', t.authorize) where to_regprocedure(t.authorize) is null and t.authorize is not null
  union all
  select format('its authorize function %s does not take (jsonb, syncline.change[]) and give boolean[]', t.authorize)
  from pg_proc p where p.oid = to_regprocedure(t.authorize)
    and (p.pronargs <> 2 or p.proargtypes[0] <> 'jsonb'::regtype or p.proargtypes[1] <> 'syncline.change[]'::regtype or p.prorettype <> 'boolean[]'::regtype or p.proretset)
  union all select * from syncline.column_faults(t)
  union all select * from syncline.key_faults(t)
  union all select * from syncline.policy_faults(t)
$$;

-- What has changed since a table was registered. Where nothing else is said, registering it again is the remedy.
create function syncline.table_drift(t syncline.registered_tables) returns setof text
language sql stable set search_path = '' as $$
  select case
    when d.now is null then format('its column %I is gone', f.value ->> 'column')
    when d.now ->> 'type' <> f.value ->> 'type'
    then format('its column %I is now of type %s, it was %s', f.value ->> 'column', d.now ->> 'type', f.value ->> 'type')
    else format('the default of its column %I has changed', f.value ->> 'column') end
  from jsonb_each(t.fields) f
  cross join lateral (select syncline.column_of(t.relation, f.value ->> 'column', false) as now) d
  where d.now is null or (d.now - 'read_only') <> (f.value - 'read_only')
  union all
  select format('its trigger zz_syncline_%s is missing or does not fire always: what was written meanwhile is not known', e.name)
  from unnest(array['insert', 'update', 'delete', 'truncate']) as e(name)
  where not exists (select from pg_trigger g where g.tgrelid = t.relation and g.tgname = 'zz_syncline_' || e.name and g.tgenabled = 'A')
$$;

-- The health of all registered tables: one row for each finding, none if all is well.
create function syncline.check_tables() returns table (entity_type text, problem text)
language plpgsql stable security definer set search_path = '' as $$
#variable_conflict use_column
declare
  t syncline.registered_tables;
begin
  for t in select * from syncline.registered_tables r order by r.entity_type loop
    if not exists (select from pg_class c where c.oid = t.relation) then
      return query select t.entity_type, 'its table is gone';
    else
      return query select t.entity_type, f.problem from (select syncline.table_faults(t) union select syncline.table_drift(t)) as f(problem);
    end if;
    -- By scope, as everything that reads a table of scopes.
    return query select t.entity_type, format('the row %s of scope %s cannot be a record: %s', c.entity_id, c.scope, c.fault)
      from syncline.scopes s join syncline.captures c on c.scope = s.scope and c.entity_type = t.entity_type and c.fault is not null;
  end loop;
end
$$;
