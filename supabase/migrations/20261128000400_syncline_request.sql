-- Reading requests: what a request must be before anything is looked up (docs/protocol.md). A malformed request is refused whole,
-- its member named; a payload that breaks a rule is the operation's own matter (`rejected`), so that nothing else suffers.
--
-- The body is `json`: Postgres has checked its syntax and nothing else. What JSON may hold and Postgres cannot, would make it
-- fail in the middle of a batch: NUL and lone surrogates (no text holds them), numbers beyond what `numeric` holds. They are
-- looked for in the text first, as are explicit nulls where a default was meant. All are rare: what has none of them takes
-- the direct way.
--
-- NUL and lone surrogates are replaced by a mark with a control character, which no id may contain, and which a payload's
-- reader finds again; a payload's own text is restored before it is hashed.

create type syncline.operation as (
  n int, lane int, alone boolean,  -- its place; that of the first operation of its entity; whether it is the only one
  id text, key text, sequence bigint, kind text, entity_type text, entity_id text,
  hash bytea, bytes int,           -- of its content, over the payload's text as received; of that text, if there is one
  patch jsonb, fault jsonb,        -- the fields it writes; or what it is to be rejected with
  before jsonb, base jsonb, at bigint,
  group_id text, depends_on text[], void boolean, conflict_rule text, delete_rule text
);

create type syncline.request as (
  problem text, about jsonb,       -- the code and members of the problem, if it is not as it must be
  user_id text, scope text, device_id text, epoch text, mark bigint, cursor text,
  dry_run boolean, forgotten_through bigint, operations json, careful boolean, poison text,
  entity_types text[], page bigint
);

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

-- A number of JSON that counts something; null if it is none. What is beyond 2^53 - 1 stays beyond it.
create function syncline.counter(p_value json) returns bigint
language plpgsql immutable set search_path = '' as $$
begin
  return case when p_value::text ~ '^[0-9]{1,20}$' then least(p_value::text::numeric, 9007199254740992)::bigint end;
end
$$;

-- The text of a JSON string; null if it is none.
create function syncline.string(p_value json) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return case json_typeof(p_value) when 'string' then p_value #>> '{}' end;
end
$$;

create function syncline.invalid(p_field text, p_detail text) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return jsonb_build_object('field', p_field, 'detail', p_detail);
end
$$;

-- The head of a push or a pull: its members' types, then whether the token allows it, then their values.
create function syncline.read_head(p_body json, p_is_push boolean, p_settings syncline.settings) returns syncline.request
language plpgsql stable set search_path = '' as $$
declare
  r syncline.request;
  v_text text := p_body::text;
  h record;
  v_member text;
begin
  if octet_length(v_text) > p_settings.max_bytes then
    r.problem := 'body_too_large';
    r.about := syncline.limits(p_settings);
    return r;
  end if;
  r.problem := 'invalid_request';
  if json_typeof(p_body) <> 'object' then
    r.about := syncline.invalid('$', 'is not a JSON object');
    return r;
  end if;
  r.careful := syncline.needs_care(v_text);
  if r.careful then
    select w.body::json, w.mark into p_body, r.poison from syncline.without_poison(v_text) w;
  end if;
  select * into h from json_to_record(p_body) as x(protocol json, user_id json, scope json, device_id json, epoch json,
    mark json, cursor json, sent_at json, dry_run json, forgotten_through json, operations json, entity_types json, "limit" json);

  if h.protocol is null then
    r.about := syncline.invalid('protocol', 'is missing');
  elsif h.protocol::text !~ '^[0-9]{1,19}$' then
    r.about := syncline.invalid('protocol', 'is not a protocol number');
  elsif h.protocol::text <> '1' then
    r.problem := 'unsupported_protocol';
    r.about := '{"supported": [1]}';
  end if;
  if r.about is not null then return r; end if;

  v_member := case
    when json_typeof(h.user_id) is distinct from 'string' then 'user_id'
    when json_typeof(h.scope) is distinct from 'string' then 'scope'
    when json_typeof(h.device_id) is distinct from 'string' then 'device_id'
    when json_typeof(h.epoch) <> 'string' then 'epoch'
    when h.mark is not null and syncline.counter(h.mark) is null then 'mark'
    when json_typeof(h.cursor) <> 'string' then 'cursor'
    when p_is_push and syncline.millis(syncline.string(h.sent_at)) is null then 'sent_at'
    when p_is_push and json_typeof(h.dry_run) <> 'boolean' then 'dry_run'
    when p_is_push and h.forgotten_through is not null and syncline.counter(h.forgotten_through) is null then 'forgotten_through'
    when p_is_push and json_typeof(h.operations) <> 'array' then 'operations'
    when not p_is_push and json_typeof(h.entity_types) <> 'array' then 'entity_types'
    when not p_is_push and syncline.counter(h."limit") is null then 'limit' end;
  if v_member is null and r.careful then
    select k.key into v_member from json_object_keys(p_body) as k(key)
    where k.key = any (case when p_is_push then array['mark', 'dry_run', 'forgotten_through', 'operations'] else array['mark'] end)
      and json_typeof(p_body -> k.key) = 'null' limit 1;
  end if;
  if v_member is not null then
    r.about := syncline.invalid(v_member, case when p_body -> v_member is null then 'is missing' else 'has the wrong type or form' end);
    return r;
  end if;

  r.user_id := h.user_id #>> '{}';
  r.scope := h.scope #>> '{}';
  r.device_id := h.device_id #>> '{}';
  r.epoch := h.epoch #>> '{}';
  r.mark := coalesce(syncline.counter(h.mark), 0);
  r.cursor := h.cursor #>> '{}';
  r.dry_run := coalesce(h.dry_run::text = 'true', false);
  r.forgotten_through := coalesce(syncline.counter(h.forgotten_through), 0);
  r.operations := coalesce(h.operations, '[]');
  r.page := syncline.counter(h."limit");
  r.problem := null;
  if not p_is_push and h.entity_types is not null then
    select array_agg(syncline.string(t.name) order by t.n) into r.entity_types
    from json_array_elements(h.entity_types) with ordinality as t(name, n);
    r.entity_types := coalesce(r.entity_types, '{}');
  end if;
  return r;
end
$$;

-- Compares what the file was opened for with what the token allows; gives a problem code.
create function syncline.refused(p_request syncline.request) returns text
language plpgsql volatile set search_path = '' as $$
begin
  return (
    select case
      when c.user_id is null then 'forbidden'
      when c.user_id <> (p_request).user_id then 'wrong_user'
      when (p_request).scope = any (syncline.allowed_scopes()) then null
      else 'wrong_scope' end
    from (select syncline.caller() as user_id) c);
end
$$;

-- What is out of range in the head of a request; null if nothing.
create function syncline.check_head(r syncline.request) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select case
      when not syncline.is_id(r.user_id) then syncline.invalid('user_id', m.id)
      when not syncline.is_id(r.scope) then syncline.invalid('scope', m.id)
      when not syncline.is_id(r.device_id) then syncline.invalid('device_id', m.id)
      when r.device_id = 'server' then syncline.invalid('device_id', 'is the name of the server''s own writes')
      when r.mark > 9007199254740991 then syncline.invalid('mark', m.counter)
      when r.forgotten_through > 9007199254740991 then syncline.invalid('forgotten_through', m.counter)
      when r.page = 0 then syncline.invalid('limit', 'is 0')
      when cardinality(r.entity_types) > 256 then syncline.invalid('entity_types', 'has more than 256 names')
      else (select syncline.invalid(format('entity_types[%s]', t.n - 1), 'is not 1 to 64 characters of [a-z0-9_]')
            from unnest(r.entity_types) with ordinality as t(name, n)
            where not coalesce(syncline.is_name(t.name), false) order by t.n limit 1)
      end
    from (values ('is not 1 to 128 characters without control characters', 'is not below 2^53')) as m(id, counter));
end
$$;

create function syncline.limits(p_settings syncline.settings) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return jsonb_build_object('limits',
    jsonb_build_object('max_operations', (p_settings).max_operations, 'max_bytes', (p_settings).max_bytes));
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
  v_names text[] := '{}';
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
      return '{"code": "invalid_value", "message": "the payload is missing", "field": "$"}';
    when v_bytes > p_max_bytes then
      return jsonb_build_object('code', 'payload_too_large', 'field', '$',
        'message', format('the payload is larger than %s bytes', p_max_bytes));
    else
      v_fault := syncline.value_fault(p_text::json, p_poison);
      return case
        when v_fault is not null
        then jsonb_build_object('code', 'invalid_value', 'message', v_fault ->> 'reason', 'field', v_fault ->> 'path')
        when json_typeof(p_text::json) <> 'object'
        then '{"code": "invalid_value", "message": "is not an object", "field": "$"}' end;
  end case;
end
$$;

-- A text as it was before `without_poison`.
create function syncline.restored(p_text text, p_poison text) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return case when p_poison is null then p_text else replace(p_text, p_poison, '\u') end;
end
$$;

-- The operations of a push, read; the problem, if one of them is not as it must be in type and form.
create function syncline.read_operations(r syncline.request, p_settings syncline.settings, p_now bigint,
  out operations syncline.operation[], out about jsonb)
language plpgsql stable set search_path = '' as $$
declare
  v_wrong int;
  v_elements json[];
  v_nulls text[];
  v_max_at constant bigint := p_now + 60000;
begin
  select min(e.n) into v_wrong
  from json_array_elements(r.operations) with ordinality as e(value, n) where json_typeof(e.value) <> 'object';
  if v_wrong is not null then
    about := syncline.invalid(format('operations[%s]', v_wrong - 1), 'has the wrong type or form');
    return;
  end if;
  if r.careful then
    select array_agg(e.value order by e.n), array_agg(syncline.null_fault(e.value) order by e.n) into v_elements, v_nulls
    from json_array_elements(r.operations) with ordinality as e(value, n);
  end if;
  with raw as (
    select x.*, x.n::int as place,
      case when json_typeof(x.payload) = 'string' then (v_elements[x.n] -> 'payload')::text else x.payload::text end as text
    from rows from (json_to_recordset(r.operations) as (id json, idempotency_key json, sequence json, operation json,
      entity_type json, entity_id json, payload json, before json, base_clock json, "timestamp" json, transaction_id json,
      depends_on json, void json, conflict_rule json, delete_rule json)) with ordinality as x(id, idempotency_key, sequence,
      operation, entity_type, entity_id, payload, before, base_clock, "timestamp", transaction_id, depends_on, void,
      conflict_rule, delete_rule, n)
  ), typed as (
    select w.*,
      case when json_typeof(w.id) = 'string' then w.id #>> '{}' end as t_id,
      case when json_typeof(w.idempotency_key) = 'string' then w.idempotency_key #>> '{}' end as t_key,
      case when json_typeof(w.entity_type) = 'string' then w.entity_type #>> '{}' end as t_type,
      case when json_typeof(w.entity_id) = 'string' then w.entity_id #>> '{}' end as t_entity,
      case when json_typeof(w.transaction_id) = 'string' then w.transaction_id #>> '{}' end as t_group,
      case w.operation::text when '"create"' then 'create' when '"update"' then 'update' when '"delete"' then 'delete' end as t_kind,
      case when w.sequence::text ~ '^[0-9]{1,15}$' then w.sequence::text::bigint else syncline.counter(w.sequence) end as t_sequence,
      case
        -- The form that devices write, of days that every month has; everything else takes longer.
        when w."timestamp"::text ~ '^"[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d\.\d{3}Z"$'
        then round(date_part('epoch', substr(w."timestamp"::text, 2, 24)::timestamptz) * 1000)::bigint
        else syncline.millis(syncline.string(w."timestamp")) end as t_at,
      case when w.operation::text <> '"delete"' and octet_length(w.text) <= p_settings.max_payload_bytes
        then syncline.read_object(w.text, r.careful) end as t_patch,
      case w.conflict_rule::text when '"last_writer_wins"' then 'last_writer_wins' when '"server_wins"' then 'server_wins'
        when '"client_wins"' then 'client_wins' when '"manual"' then 'manual' end as t_conflict,
      case w.delete_rule::text when '"update_wins"' then 'update_wins' when '"delete_wins"' then 'delete_wins' end as t_delete,
      w.base_clock is null or w.base_clock::text ~ '^\{\s*(?:"(?:[^"\\]|\\.)*"\s*:\s*[1-9][0-9]{0,14}\s*(?:,\s*(?=")|(?=\})))*\}$' as clock_ok
    from raw w
  ), formed as (
    select t.*, case
        when t.t_id is null then 'id'
        when t.t_key is null then 'idempotency_key'
        when t.t_sequence is null then 'sequence'
        when t.t_kind is null then 'operation'
        when t.t_type is null then 'entity_type'
        when t.t_entity is null then 'entity_id'
        when json_typeof(t.before) <> 'object' then 'before'
        when not t.clock_ok then syncline.clock_fault(t.base_clock)
        when t.t_at is null then 'timestamp'
        when t.transaction_id is not null and t.t_group is null then 'transaction_id'
        when t.depends_on is not null then syncline.dependencies_fault(t.depends_on)
      end as fault,
      case
        when json_typeof(t.void) <> 'boolean' then 'void'
        when t.conflict_rule is not null and t.t_conflict is null then 'conflict_rule'
        when t.delete_rule is not null and t.t_delete is null then 'delete_rule'
        when r.careful then v_nulls[t.place]
      end as later_fault
    from typed t
  )
  select
    array_agg(row(
      f.place, f.lane, f.alone, f.t_id, f.t_key, f.t_sequence, f.t_kind, f.t_type, f.t_entity,
      sha256(int8send(octet_length(f.t_kind)) || convert_to(f.t_kind, 'UTF8')
        || int8send(octet_length(f.t_type)) || convert_to(f.t_type, 'UTF8')
        || int8send(octet_length(f.t_entity)) || convert_to(f.t_entity, 'UTF8')
        || int8send(octet_length(f.hashed)) || convert_to(f.hashed, 'UTF8')),
      case when f.text is null then 0 else octet_length(f.hashed) end,
      case when f.t_kind = 'delete' then '{}' when f.t_patch is not null then f.t_patch
        when f.t_fault is null then syncline.to_record(f.text::json) end,
      f.t_fault,
      case when f.before is not null then syncline.before_of(f.before, r.careful, r.poison) end,
      case when f.base_clock is null then '{}' when f.clock_ok then f.base_clock::text::jsonb else syncline.clock_from(f.base_clock) end,
      least(f.t_at, v_max_at), f.t_group,
      case when f.depends_on is not null then (select array_agg(d.id) from json_array_elements_text(f.depends_on) as d(id)) end,
      coalesce(f.void::text = 'true', false), f.t_conflict, f.t_delete)::syncline.operation order by f.place)
      filter (where coalesce(f.fault, f.later_fault) is null),
    (select syncline.invalid(format('operations[%s].%s', f.place - 1, coalesce(f.fault, f.later_fault)),
        case when coalesce(f.fault, f.later_fault) !~ '[.[]' and r.operations -> (f.place - 1) -> coalesce(f.fault, f.later_fault) is null
          then 'is missing' else 'has the wrong type or form' end)
      from formed f where coalesce(f.fault, f.later_fault) is not null order by f.place limit 1)
    into operations, about
  from (
    select g.*, first_value(g.place) over lane as lane, count(*) over (partition by g.t_type collate "C", g.t_entity collate "C") = 1 as alone,
      coalesce(case when r.poison is null then g.text else syncline.restored(g.text, r.poison) end, 'null') as hashed,
      case when g.t_patch is null and g.t_kind <> 'delete'
        then syncline.payload_fault(g.text, g.t_kind, r.poison, p_settings.max_payload_bytes) end as t_fault
    from formed g
    window lane as (partition by g.t_type collate "C", g.t_entity collate "C" order by g.place)
  ) f;
  operations := coalesce(operations, '{}');
end
$$;

-- The member of a clock that is no counter.
create function syncline.clock_fault(p_clock json) returns text
language plpgsql immutable set search_path = '' as $$
declare
  v_device text;
begin
  if json_typeof(p_clock) <> 'object' then
    return 'base_clock';
  end if;
  select c.key into v_device from json_each(p_clock) c where syncline.counter(c.value) is null limit 1;
  return 'base_clock.' || v_device;
end
$$;

-- A clock in a form that a direct cast might not take: without entries that say nothing. What is beyond 2^53 - 1 is found by the
-- check that follows.
create function syncline.clock_from(p_clock json) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_object_agg(c.key, syncline.counter(c.value)) filter (where syncline.counter(c.value) > 0), '{}')
    from json_each(p_clock) c);
end
$$;

create function syncline.dependencies_fault(p_ids json) returns text
language plpgsql immutable set search_path = '' as $$
declare
  v_place int;
begin
  if json_typeof(p_ids) <> 'array' then
    return 'depends_on';
  end if;
  select d.n into v_place from json_array_elements(p_ids) with ordinality as d(id, n) where json_typeof(d.id) <> 'string' order by d.n limit 1;
  return 'depends_on[' || v_place - 1 || ']';
end
$$;

-- A member whose default was meant and that says null.
create function syncline.null_fault(p_operation json) returns text
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select m.name from unnest(array['base_clock', 'depends_on', 'void']) as m(name)
    where json_typeof(p_operation -> m.name) = 'null' limit 1);
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

-- What is out of range in the operations: names, ids, counters, what is given twice, lane order, transactions; null if nothing.
create function syncline.check_operations(p_operations syncline.operation[], p_forgotten_through bigint) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  v_wrong syncline.operation;
  v_about jsonb;
begin
  select o.* into v_wrong from unnest(p_operations) o
  where o.sequence not between greatest(p_forgotten_through, 0) + 1 and 9007199254740991
    or length(o.id) not between 1 and 128 or length(o.key) not between 1 and 128
    or length(o.entity_id) not between 1 and 128 or length(o.group_id) not between 1 and 128
    or concat(o.id, o.key, o.entity_id, o.group_id) ~ '[\u0001-\u001f\u007f-\u009f]'
    or o.entity_type !~ '^[a-z0-9_]{1,64}$'
    or o.base <> '{}' and syncline.clock_out_of_range(o.base)
    or o.depends_on is not null and exists (select from unnest(o.depends_on) as d(id) where not syncline.is_id(d.id))
  order by o.n limit 1;
  if found then
    return syncline.check_operation(v_wrong, p_forgotten_through);
  end if;

  if (select count(distinct o.id collate "C") < count(*) or count(distinct o.key collate "C") < count(*)
        or count(distinct o.sequence) < count(*) from unnest(p_operations) o) then
    select syncline.invalid(format('operations[%s].%s', t.n - 1,
        case when t.ids > 1 then 'id' when t.keys > 1 then 'idempotency_key' else 'sequence' end), 'is given twice') into v_about
    from (select o.n,
        row_number() over (partition by o.id collate "C" order by o.n) as ids,
        row_number() over (partition by o.key collate "C" order by o.n) as keys,
        row_number() over (partition by o.sequence order by o.n) as sequences
      from unnest(p_operations) o) t
    where t.ids > 1 or t.keys > 1 or t.sequences > 1 order by t.n limit 1;
    return v_about;
  end if;

  select syncline.invalid(format('operations[%s].%s', t.n - 1, t.member), t.detail) into v_about
  from (
    select o.n, 0 as place, 'sequence' as member, 'is out of the lane''s order' as detail
    from (select u.n, u.alone, u.sequence, lag(u.sequence) over (partition by u.lane order by u.n) as earlier
          from unnest(p_operations) u where not u.alone) o
    where o.earlier > o.sequence
    union all
    select o.n, d.place, format('depends_on[%s]', d.place - 1), 'is not an earlier operation'
    from unnest(p_operations) o
    cross join lateral unnest(o.depends_on) with ordinality as d(id, place)
    join unnest(p_operations) e on e.id = d.id and e.n >= o.n
    where o.depends_on is not null
  ) t order by t.n, t.place limit 1;
  return coalesce(v_about, syncline.check_transactions(p_operations));
end
$$;

create function syncline.clock_out_of_range(p_clock jsonb) returns boolean
language plpgsql immutable set search_path = '' as $$
begin
  return exists (select from jsonb_each(p_clock) c where not syncline.is_id(c.key) or c.value::bigint > 9007199254740991);
end
$$;

-- What is out of range in one operation.
create function syncline.check_operation(o syncline.operation, p_forgotten_through bigint) returns jsonb
language plpgsql immutable set search_path = '' as $$
declare
  c_id constant text := 'is not 1 to 128 characters without control characters';
  v_member text;
  v_detail text := c_id;
begin
  case
    when not syncline.is_id(o.id) then v_member := 'id';
    when not syncline.is_id(o.key) then v_member := 'idempotency_key';
    when not syncline.is_id(o.entity_id) then v_member := 'entity_id';
    when not syncline.is_id(o.group_id) then v_member := 'transaction_id';
    when not syncline.is_name(o.entity_type) then
      v_member := 'entity_type';
      v_detail := 'is not 1 to 64 characters of [a-z0-9_]';
    when o.sequence not between 1 and 9007199254740991 then
      v_member := 'sequence';
      v_detail := 'is not between 1 and 2^53 - 1';
    when o.sequence <= p_forgotten_through then
      v_member := 'sequence';
      v_detail := 'is not above forgotten_through';
    when syncline.clock_out_of_range(o.base) then
      v_member := 'base_clock';
      v_detail := 'has a device id or a counter out of range';
    else
      select format('depends_on[%s]', d.n - 1) into v_member
      from unnest(o.depends_on) with ordinality as d(id, n) where not syncline.is_id(d.id) order by d.n limit 1;
  end case;
  return syncline.invalid(format('operations[%s].%s', o.n - 1, v_member), v_detail);
end
$$;

-- The members of a transaction stand next to each other, are within its limits, and are all voided or none.
create function syncline.check_transactions(p_operations syncline.operation[]) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return (
    select syncline.invalid(format('operations[%s].transaction_id', g.start - 1), case
        when g.again then 'its members do not stand next to each other'
        when g.members > 100 or g.bytes > 1048576 then 'the transaction is over 100 operations or 1 MiB'
        else 'some of its members are voided and some are not' end)
    from (
      select min(t.n) as start, count(*) as members, sum(t.bytes) as bytes, bool_or(t.void) and not bool_and(t.void) as mixed,
        row_number() over (partition by t.group_id collate "C" order by min(t.n)) > 1 as again
      from (
        select o.n, o.group_id, o.void, o.bytes, o.n - row_number() over (partition by o.group_id collate "C" order by o.n) as run
        from unnest(p_operations) o where o.group_id is not null) t
      group by t.group_id collate "C", t.run, t.group_id
    ) g
    where g.again or g.members > 100 or g.bytes > 1048576 or g.mixed
    order by g.start limit 1);
end
$$;
