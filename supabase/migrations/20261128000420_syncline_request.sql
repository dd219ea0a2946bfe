-- The head of a request: what it must be before anything is looked up (docs/protocol.md). A malformed request is refused whole, its
-- member named.

create type syncline.request as (
  problem text, about jsonb,       -- the code and members of the problem, if it is not as it must be
  user_id text, scope text, device_id text, epoch text, mark bigint, cursor text,
  dry_run boolean, forgotten_through bigint, operations json, careful boolean, poison text,
  entity_types text[], page bigint
);

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

create function syncline.limits(p_settings syncline.settings) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return jsonb_build_object('limits',
    jsonb_build_object('max_operations', (p_settings).max_operations, 'max_bytes', (p_settings).max_bytes));
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
      when c.user_id is null or coalesce(cardinality(c.scopes), 0) = 0 then 'forbidden'
      when c.user_id <> (p_request).user_id then 'wrong_user'
      when (p_request).scope = any (c.scopes) then null
      else 'wrong_scope' end
    from (select syncline.caller() as user_id, syncline.allowed_scopes() as scopes) c);
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
