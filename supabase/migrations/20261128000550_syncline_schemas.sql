-- JSON Schema for records, of the keywords that are below: what the embedded endpoint checks with a library. A schema with any
-- other keyword is refused when it is set, so that nobody believes in a rule that is not held.

-- The first keyword that is not known, as a JSON pointer; null if all are.
create function syncline.unknown_keyword(p_schema jsonb, p_path text default '') returns text
language plpgsql immutable strict set search_path = '' as $$
declare
  k record;
  c record;
  v_unknown text;
begin
  if jsonb_typeof(p_schema) = 'boolean' then
    return null;
  elsif jsonb_typeof(p_schema) <> 'object' then
    return p_path;
  end if;
  for k in select s.key, s.value from jsonb_each(p_schema) s loop
    case
      when k.key in ('type', 'required', 'enum', 'const', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf',
        'minLength', 'maxLength', 'pattern', 'minItems', 'maxItems', 'minProperties', 'maxProperties',
        '$schema', '$id', '$comment', 'title', 'description', 'default', 'examples') then null;
      when k.key in ('items', 'additionalProperties') then
        v_unknown := syncline.unknown_keyword(k.value, p_path || '/' || k.key);
      when k.key = 'properties' and jsonb_typeof(k.value) = 'object' then
        for c in select s.key, s.value from jsonb_each(k.value) s loop
          v_unknown := coalesce(v_unknown, syncline.unknown_keyword(c.value, p_path || '/properties/' || c.key));
        end loop;
      else
        v_unknown := p_path || '/' || k.key;
    end case;
    exit when v_unknown is not null;
  end loop;
  return v_unknown;
end
$$;

alter table syncline.entity_types add constraint schema_is_known check (syncline.unknown_keyword(schema) is null);

-- Where a value does not satisfy a schema: `schema`, the path of the keyword, and `path`, the steps to the value. Null if it does.
create function syncline.schema_breach(p_schema jsonb, p_value jsonb, p_at text default '', p_path text[] default '{}') returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_type text := jsonb_typeof(p_value);
  v_breach jsonb;
  v_keyword text;
  v_extra text;
  m record;
begin
  if p_schema = 'true' then
    return null;
  end if;
  v_keyword := case
    when p_schema = 'false' then ''
    when p_schema ? 'type' and not exists (
      select from jsonb_array_elements_text(case when jsonb_typeof(p_schema -> 'type') = 'array' then p_schema -> 'type'
        else jsonb_build_array(p_schema -> 'type') end) as t(name)
      where t.name = v_type or t.name = 'integer' and v_type = 'number' and trunc((p_value)::numeric) = (p_value)::numeric) then 'type'
    when p_schema ? 'enum' and not exists (
      select from jsonb_array_elements(p_schema -> 'enum') as e(value) where e.value = p_value) then 'enum'
    when p_schema ? 'const' and p_schema -> 'const' <> p_value then 'const' end;
  if v_keyword is null then
    v_keyword := case v_type
      when 'number' then case
        when (p_value)::numeric < (p_schema -> 'minimum')::numeric then 'minimum'
        when (p_value)::numeric > (p_schema -> 'maximum')::numeric then 'maximum'
        when (p_value)::numeric <= (p_schema -> 'exclusiveMinimum')::numeric then 'exclusiveMinimum'
        when (p_value)::numeric >= (p_schema -> 'exclusiveMaximum')::numeric then 'exclusiveMaximum'
        when (p_value)::numeric % (p_schema -> 'multipleOf')::numeric <> 0 then 'multipleOf' end
      when 'string' then case
        when length(p_value #>> '{}') < (p_schema -> 'minLength')::int then 'minLength'
        when length(p_value #>> '{}') > (p_schema -> 'maxLength')::int then 'maxLength'
        when p_value #>> '{}' !~ (p_schema ->> 'pattern') then 'pattern' end
      when 'array' then case
        when jsonb_array_length(p_value) < (p_schema -> 'minItems')::int then 'minItems'
        when jsonb_array_length(p_value) > (p_schema -> 'maxItems')::int then 'maxItems' end
      when 'object' then case
        when (select count(*) from jsonb_object_keys(p_value)) < (p_schema -> 'minProperties')::int then 'minProperties'
        when (select count(*) from jsonb_object_keys(p_value)) > (p_schema -> 'maxProperties')::int then 'maxProperties' end
      end;
  end if;
  if v_keyword is not null then
    return jsonb_build_object('schema', p_at || case when v_keyword = '' then '' else '/' || v_keyword end, 'path', to_jsonb(p_path));
  end if;
  if v_type = 'array' and p_schema ? 'items' then
    for m in select a.value, a.n - 1 as n from jsonb_array_elements(p_value) with ordinality as a(value, n) loop
      v_breach := syncline.schema_breach(p_schema -> 'items', m.value, p_at || '/items', p_path || m.n::text);
      exit when v_breach is not null;
    end loop;
  elsif v_type = 'object' then
    select r.name into v_extra from jsonb_array_elements_text(p_schema -> 'required') as r(name) where not p_value ? r.name limit 1;
    if found then
      return jsonb_build_object('schema', p_at || '/required', 'path', to_jsonb(p_path || v_extra));
    end if;
    for m in select o.key, o.value, p_schema -> 'properties' -> o.key as schema from jsonb_each(p_value) o loop
      v_breach := case
        when m.schema is not null
        then syncline.schema_breach(m.schema, m.value, p_at || '/properties/' || m.key, p_path || m.key)
        when p_schema -> 'additionalProperties' = 'false'
        then jsonb_build_object('schema', p_at || '/additionalProperties', 'path', to_jsonb(p_path || m.key))
        when p_schema ? 'additionalProperties'
        then syncline.schema_breach(p_schema -> 'additionalProperties', m.value, p_at || '/additionalProperties', p_path || m.key) end;
      exit when v_breach is not null;
    end loop;
  end if;
  return v_breach;
end
$$;

-- What a write is rejected with whose record does not satisfy its type's schema: the field named, no value repeated.
create function syncline.schema_error(p_schema jsonb, p_record jsonb) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select syncline.error('invalid_value', 'the record does not satisfy ' || (b.breach ->> 'schema'))
      || case when b.breach #>> '{path,0}' is null then '{}' else jsonb_build_object('field', b.breach #>> '{path,0}') end
    from (select syncline.schema_breach(p_schema, p_record) as breach) b where b.breach is not null);
end
$$;
