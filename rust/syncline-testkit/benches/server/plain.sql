-- What the endpoint writes for a push, by plain set-based SQL that checks nothing: no token, no limits, no key looked up, no
-- rules, no answer but the new head. The benchmark first makes sure that both leave the same rows.

create schema plain;

create function plain.push(p_body json) returns json
language plpgsql volatile set plan_cache_mode = force_generic_plan as $$
declare
  h record;
  v_now constant bigint := floor(extract(epoch from clock_timestamp()) * 1000)::bigint;
  v_count int;
  v_head bigint;
begin
  select * into h from json_to_record(p_body) as x(user_id text, scope text, device_id text, operations json);
  v_count := json_array_length(h.operations);
  update syncline.scopes s set head = s.head + v_count where s.scope = h.scope returning s.head - v_count into v_head;
  with given as materialized (
    select o.*, json_build_array(h.device_id, o.sequence, 1777636800000)::jsonb as write, o.payload::jsonb as fields
    from rows from (json_to_recordset(h.operations) as (id text, idempotency_key text, sequence bigint, operation text,
      entity_type text, entity_id text, payload json)) with ordinality as o(id, key, sequence, operation, entity_type, entity_id, payload, n)
  ), written as (
    insert into syncline.entities as e (scope, entity_type, entity_id, version, payload, fields, created, deleted, clock, changed_at, bytes, stored_at)
    select h.scope, g.entity_type, g.entity_id, v_head + g.n, g.fields, '{}', g.write, null,
      jsonb_build_object(h.device_id, g.sequence), 1777636800000, octet_length(g.fields::text), v_now
    from given g
    on conflict (scope, entity_type, entity_id) do update set version = excluded.version, payload = e.payload || excluded.payload,
      fields = e.fields || (select jsonb_object_agg(k.key, excluded.created) from jsonb_object_keys(excluded.payload) as k(key)),
      clock = excluded.clock, changed_at = excluded.changed_at, bytes = octet_length((e.payload || excluded.payload)::text),
      stored_at = excluded.stored_at
  )
  insert into syncline.operations (scope, idempotency_key, operation_id, device_id, sequence, operation, entity_type, entity_id,
    content_hash, verdict, error, conflict_id, decided_at)
  select h.scope, g.key, g.id, h.device_id, g.sequence, g.operation, g.entity_type, g.entity_id,
    sha256(convert_to(g.payload::text, 'UTF8')), 'applied', null, null, v_now
  from given g;
  insert into syncline.devices as d (scope, device_id, user_id, mark, forgotten_through) values (h.scope, h.device_id, h.user_id, 1, 0)
  on conflict (scope, device_id) do update set mark = d.mark + 1;
  return json_build_object('version', v_head + v_count);
end
$$;
