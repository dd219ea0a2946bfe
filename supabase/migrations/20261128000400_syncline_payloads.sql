-- Payloads: what a record may hold (docs/protocol.md), read from the text that arrived. A payload that breaks a rule is its
-- operation's own matter (`rejected`), so that nothing else suffers.
--
-- A body is `json`: Postgres has checked its syntax and nothing else. What JSON may hold and Postgres cannot, would make it fail
-- in the middle of a batch: NUL and lone surrogates (no text holds them), numbers beyond what `numeric` holds. They are looked for
-- in the text first, as are explicit nulls where a default was meant. All are rare: what has none of them takes the direct way.
--
-- NUL and lone surrogates are replaced by a mark with a control character, which no id may contain, and which a payload's
-- reader finds again; a payload's own text is restored before it is hashed.

-- Whether a body needs care: see above. Also where a payload is a text, whose own form only the slow way keeps.
create function syncline.needs_care(p_text text) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return p_text ~ concat(
    '\\u(?:0000|[dD][89a-fA-F])|"payload"\s*:\s*"',
    '|"(?:void|depends_on|base_clock|mark|dry_run|forgotten_through|operations)"\s*:\s*null');
end
$$;

-- The body with every NUL and lone surrogate as `mark` + its four digits; `mark` is null if there is none.
create function syncline.without_poison(p_text text, out body text, out mark text)
language plpgsql immutable set search_path = '' as $$
declare
  -- Stand for a backslash and for a pair of surrogates meanwhile: no JSON text has them outside a string, and none as escapes.
  c_backslash constant text := E'\x01';
  c_pair constant text := E'\x02';
begin
  body := regexp_replace(replace(p_text, '\\', c_backslash), '\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)', c_pair || '\1\2', 'g');
  if body ~ '\\u(?:0000|[dD][89a-fA-F])' then
    mark := '\u0001';
    while strpos(p_text, mark) > 0 loop
      mark := mark || '~';
    end loop;
    body := regexp_replace(body, '\\u(0000|[dD][89a-fA-F]..)', replace(mark, '\', '\\') || '\1', 'g');
  end if;
  body := replace(regexp_replace(body, c_pair || '(....)(....)', '\\u\1\\u\2', 'g'), c_backslash, '\\');
end
$$;

-- A text as it was before `without_poison`.
create function syncline.restored(p_text text, p_poison text) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return case when p_poison is null then p_text else replace(p_text, p_poison, '\u') end;
end
$$;

-- A JSON object that a record may hold, from its text; null if there is anything in it that needs a closer look.
create function syncline.read_object(p_text text, p_careful boolean) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_nesting constant int := length(p_text) - length(translate(p_text, '{[', ''));
  -- Numbers of many digits or with an exponent; one in a text only costs the closer look.
  v_numbers constant boolean := p_text ~ '[:,[]\s*-?[0-9.]*(?:[0-9]{16}|[0-9][eE])';
  v_object jsonb;
  v_given text := p_text;
  v_kept text;
begin
  if left(p_text, 1) <> '{' or v_nesting > 1000
    or p_careful and strpos(p_text, '\u0001') > 0
    or v_numbers and p_text ~ '[0-9][eE][-+]?0*[1-9][0-9]{3}|[0-9]{200}' then
    return null;
  end if;
  v_object := p_text::jsonb;
  -- The quotes that are not escaped are two for each name and each string: a name given twice is one that `jsonb` dropped.
  v_kept := v_object::text;
  if strpos(p_text, '\') > 0 then
    v_given := replace(replace(v_given, '\\', ''), '\"', '');
    v_kept := replace(replace(v_kept, '\\', ''), '\"', '');
  end if;
  if length(v_given) - length(replace(v_given, '"', '')) <> length(v_kept) - length(replace(v_kept, '"', ''))
    or v_nesting > 32 and jsonb_path_exists(v_object, 'strict $.**{33}')
    or v_numbers and jsonb_path_exists(v_object, 'strict $.** ? (@ >= 9007199254740991.5 || @ <= -9007199254740991.5)') then
    return null;
  end if;
  return v_object;
end
$$;

-- Why a JSON value may not be in a record: `path` and `reason`, no value repeated; null if it may. The slow and exact way.
create function syncline.value_fault(p_value json, p_poison text, p_path text default '$', p_level int default 0) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_mark constant text := ('"' || p_poison || '"')::json #>> '{}';
  v_fault jsonb;
  v_names text[] := array[]::text[];
  v_path text;
  m record;
begin
  if p_level > 32 then
    return jsonb_build_object('path', p_path, 'reason', 'is nested deeper than 32 levels');
  end if;
  case json_typeof(p_value)
    when 'number' then
      return syncline.number_fault(p_value::text, p_path);
    when 'string' then
      if strpos(p_value #>> '{}', v_mark) > 0 then
        return jsonb_build_object('path', p_path, 'reason', syncline.poison_in(p_value #>> '{}', v_mark));
      end if;
    when 'array' then
      for m in select a.value, a.n - 1 as n from json_array_elements(p_value) with ordinality as a(value, n) loop
        v_fault := syncline.value_fault(m.value, p_poison, p_path || format('[%s]', m.n), p_level + 1);
        exit when v_fault is not null;
      end loop;
    when 'object' then
      for m in select o.key, o.value from json_each(p_value) o loop
        v_path := p_path || '.' || m.key;
        if strpos(m.key, v_mark) > 0 then
          v_path := p_path || '.' || split_part(m.key, v_mark, 1);
          v_fault := jsonb_build_object('path', v_path, 'reason',
            case when strpos(m.key, v_mark || '0000') > 0 then 'has a NUL character in its name' else 'has a lone surrogate in its name' end);
        elsif p_level = 32 then
          v_fault := jsonb_build_object('path', v_path, 'reason', 'is nested deeper than 32 levels');
        elsif m.key = any (v_names) then
          v_fault := jsonb_build_object('path', v_path, 'reason', 'is given twice');
        else
          v_names := v_names || m.key;
          v_fault := syncline.value_fault(m.value, p_poison, v_path, p_level + 1);
        end if;
        exit when v_fault is not null;
      end loop;
    else null;
  end case;
  return v_fault;
end
$$;

create function syncline.poison_in(p_text text, p_mark text) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return case when substr(p_text, strpos(p_text, p_mark) + length(p_mark), 4) = '0000'
    then 'holds a NUL character' else 'holds a lone surrogate' end;
end
$$;

-- A number as its double would be: not infinite, and no integer that a reader may not keep exact.
create function syncline.number_fault(p_number text, p_path text) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_exponent numeric := coalesce(substring(p_number from '[eE]\+?(-?[0-9]{1,9})'), '0')::numeric
    + length(ltrim(substring(p_number from '^-?([0-9]+)'), '0'));
  v_number numeric;
begin
  if v_exponent > 400 and p_number !~ '^-?[0.]+([eE]|$)' then
    return jsonb_build_object('path', p_path, 'reason', 'number out of range');
  elsif v_exponent < 0 or p_number ~ '^-?[0.]+([eE]|$)' then
    return null;
  end if;
  -- With 40 digits behind the point no double changes that matters here.
  v_number := abs(regexp_replace(p_number, '(\.[0-9]{40})[0-9]+', '\1')::numeric);
  return case
    -- Halfway between the highest double and what would be the next.
    when v_number >= 2::numeric ^ 1024 - 2::numeric ^ 970
    then jsonb_build_object('path', p_path, 'reason', 'number out of range')
    when v_number >= 9007199254740991.5 and v_number < 999999999999999934464
    then jsonb_build_object('path', p_path, 'reason', 'is an integer beyond 2^53 - 1 (send it as text)') end;
end
$$;

-- A value without fault as `jsonb`, where a direct cast may fail: numbers too small or written too long become their double.
create function syncline.to_record(p_value json) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  case json_typeof(p_value)
    when 'number' then
      return case
        when p_value::text ~ '[eE]-0*[1-9][0-9]{3}' then '0'
        else regexp_replace(p_value::text, '(\.[0-9]{250})[0-9]+', '\1')::jsonb end;
    when 'array' then
      return (select coalesce(jsonb_agg(syncline.to_record(a.value) order by a.n), '[]')
        from json_array_elements(p_value) with ordinality as a(value, n));
    when 'object' then
      return (select coalesce(jsonb_object_agg(o.key, syncline.to_record(o.value)), '{}') from json_each(p_value) o);
    else
      return p_value::jsonb;
  end case;
end
$$;

-- What an operation is rejected with for its payload; null for none.
create function syncline.payload_fault(p_text text, p_kind text, p_poison text, p_max_bytes int) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_bytes int := octet_length(coalesce(syncline.restored(p_text, p_poison), 'null'));
  v_fault jsonb;
begin
  case
    when p_kind = 'delete' then
      return null;
    when p_text is null or p_text = 'null' then
      return '{"code": "invalid_value", "message": "the payload is missing", "field": "$"}'::jsonb;
    when v_bytes > p_max_bytes then
      return jsonb_build_object('code', 'payload_too_large', 'field', '$',
        'message', format('the payload is larger than %s bytes', p_max_bytes));
    else
      v_fault := syncline.value_fault(p_text::json, p_poison);
      return case
        when v_fault is not null
        then jsonb_build_object('code', 'invalid_value', 'message', v_fault ->> 'reason', 'field', v_fault ->> 'path')
        when json_typeof(p_text::json) <> 'object'
        then '{"code": "invalid_value", "message": "is not an object", "field": "$"}'::jsonb end;
  end case;
end
$$;

-- The old values, if they are fit to be kept: what is not only costs the ledger its `base`.
create function syncline.before_of(p_before json, p_careful boolean, p_poison text) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return coalesce(syncline.read_object(p_before::text, p_careful),
    case when octet_length(p_before::text) <= 524288 and syncline.value_fault(p_before, p_poison) is null
      then syncline.to_record(p_before) end);
end
$$;
