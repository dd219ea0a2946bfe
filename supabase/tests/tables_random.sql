-- A registered type behaves for devices like any other: random pushes of three devices get the same answers with a table and without. And
-- with direct writes among them, rows and records agree after each pull.
begin;
\ir support/sync.psql
select no_plan();
create table public.test_real (scope text not null, id text not null, clock jsonb, a text, b float8, c jsonb, primary key (scope, id));
select syncline.register_table('real', 'test_real');
update syncline.settings set scope_claim = 'scope';

-- What a device may send next: creates, updates and deletes of few entities, having seen nothing, something or everything; voids, groups, dependencies, repeats.
create function pg_temp.some_operations(p_scope text, p_type text, p_device text, p_first int) returns jsonb[] language plpgsql as $$
declare
  v_operations jsonb[] := '{}';
  v_id text;
  v_payload jsonb;
  v_base jsonb;
  v_kind text;
  v_group text;
  v_seen jsonb := '{}';
begin
  for n in p_first .. p_first + (random() * 6)::int loop
    v_id := 'e' || (random() * 5)::int;
    v_kind := (array['create', 'update', 'update', 'update', 'delete'])[1 + floor(random() * 5)::int];
    v_payload := case when random() < 0.5 then jsonb_build_object('a', (array['"x"', '"y"', 'null'])[1 + floor(random() * 3)::int]::jsonb) else '{}' end
      || case when random() < 0.5 then jsonb_build_object('b', (random() * 3)::int) else '{}' end
      || case when random() < 0.3 then jsonb_build_object('c', (array['{"k": null}', '[1, "2"]', 'null'])[1 + floor(random() * 3)::int]::jsonb) else '{}' end;
    -- Of its own dots a device has seen all; of the others' those that it pulled.
    v_base := coalesce((select case when random() < 0.6 then e.clock else jsonb_build_object(p_device, e.clock -> p_device) end
      from syncline.entities e where e.scope = p_scope and e.entity_type = p_type and e.entity_id = v_id), '{}');
    v_base := jsonb_strip_nulls(v_base || coalesce(v_seen -> v_id, '{}'));
    v_seen := v_seen || jsonb_build_object(v_id, jsonb_build_object(p_device, n));
    v_group := case when random() < 0.5 then v_group when random() < 0.3 then 'g' || n end;
    v_operations := v_operations || pg_temp.op(n, v_kind, p_type, v_id, case when v_kind <> 'delete' then v_payload end, v_base,
      jsonb_strip_nulls(jsonb_build_object('id', p_device || n, 'idempotency_key', p_device || n, 'transaction_id', v_group,
        'void', case when random() < 0.03 and v_group is null then true end,
        'timestamp', syncline.moment(1777636800000 + (random() * 1000)::int),
        'depends_on', case when random() < 0.1 and n > p_first then jsonb_build_array(p_device || n - 1) end,
        'conflict_rule', (array['last_writer_wins', 'server_wins', 'client_wins', 'manual'])[1 + floor(random() * 4)::int],
        'delete_rule', (array['update_wins', 'delete_wins'])[1 + floor(random() * 2)::int])));
  end loop;
  return v_operations;
end $$;

-- An answer without what is made up each time.
create function pg_temp.plainly(p_answer jsonb) returns text language sql as $$
  select regexp_replace((p_answer - '{epoch,server_time}'::text[])::text, '"(id|decided_at)": "[0-9a-f]{8}-[^"]*"|"decided_at": "[^"]*"', '', 'g')
$$;

create function pg_temp.compare(p_seed float8, p_pushes int) returns text language plpgsql as $$
declare
  v_devices constant text[] := array['adaone', 'adatwo', 'adathree'];
  v_sequences int[] := array[1, 1, 1];
  v_operations jsonb[];
  v_last jsonb[];
  v_more jsonb;
  v_free jsonb;
  v_real jsonb;
  d int;
begin
  perform setseed(p_seed);
  for n in 1 .. p_pushes loop
    d := 1 + floor(random() * 3)::int;
    if random() < 0.1 and v_last is not null then
      v_operations := v_last;
      d := 1;
    else
      v_operations := pg_temp.some_operations('free', 'free', v_devices[d], v_sequences[d]);
      v_sequences[d] := v_sequences[d] + cardinality(v_operations);
    end if;
    if d = 1 then
      v_last := v_operations;
    end if;
    v_more := case when random() < 0.1 then '{"dry_run": true}' else '{}' end;
    v_free := pg_temp.push('free', v_operations, v_more, substr(v_devices[d], 4));
    v_real := pg_temp.push('real', array(select o || '{"entity_type": "real"}' from unnest(v_operations) o), v_more, substr(v_devices[d], 4));
    if pg_temp.plainly(v_free) <> replace(pg_temp.plainly(v_real), '"entity_type": "real"', '"entity_type": "free"') then
      return format('push %s: %s, with a table: %s', n, v_free, v_real);
    elsif exists (select from (select id, syncline.without_nulls(jsonb_build_object('a', to_jsonb(a), 'b', to_jsonb(b), 'c', c)) as record, clock from public.test_real where scope = 'real') t
      full join (select entity_id, payload, clock from syncline.entities where scope = 'real' and deleted is null) e on e.entity_id = t.id
      where t.record is distinct from e.payload or t.clock is distinct from e.clock) then
      return format('push %s: rows and records differ', n);
    end if;
  end loop;
  return 'the same';
end $$;

create function pg_temp.disturb(p_seed float8, p_rounds int) returns text language plpgsql as $$
declare
  v_sequence int := 1;
  v_operations jsonb[];
begin
  perform setseed(p_seed);
  for n in 1 .. p_rounds loop
    case floor(random() * 5)::int
      when 0 then insert into public.test_real (scope, id, a) values ('wild', 'e' || (random() * 5)::int, 'direct') on conflict (scope, id) do update set a = 'again ' || n;
      when 1 then update public.test_real set b = n, c = case when random() < 0.5 then '{"n": null}'::jsonb end where scope = 'wild' and id = 'e' || (random() * 5)::int;
      when 2 then delete from public.test_real where scope = 'wild' and id = 'e' || (random() * 5)::int;
      when 3 then update public.test_real set scope = 'wild2' where scope = 'wild' and id = 'e' || (random() * 5)::int and not exists (select from public.test_real o where o.scope = 'wild2' and o.id = test_real.id);
      else
        v_operations := pg_temp.some_operations('wild', 'real', 'adawild', v_sequence);
        v_sequence := v_sequence + cardinality(v_operations);
        if pg_temp.push('wild', v_operations, '{}', 'wild') ? 'code' then
          return format('round %s: a problem', n);
        end if;
    end case;
    if random() < 0.5 then
      perform pg_temp.pull('wild'), pg_temp.pull('wild2');
      if exists (select from (select scope, id, syncline.without_nulls(jsonb_build_object('a', to_jsonb(a), 'b', to_jsonb(b), 'c', c)) as record, clock from public.test_real where scope ~ 'wild') t
        full join (select scope, entity_id, payload, clock from syncline.entities where scope ~ 'wild' and deleted is null) e on e.scope = t.scope and e.entity_id = t.id
        where t.record is distinct from e.payload or t.clock is distinct from e.clock) then
        return format('round %s: rows and records differ', n);
      elsif exists (select from syncline.scopes s where s.scope ~ 'wild' and s.head < (select max(e.version) from syncline.entities e where e.scope = s.scope)) then
        return format('round %s: a version beyond the head', n);
      elsif exists (select from syncline.captures where scope ~ 'wild') then
        return format('round %s: something waits', n);
      end if;
    end if;
  end loop;
  return 'agreed';
end $$;

select pg_temp.become('ada', array['free', 'real', 'wild', 'wild2']);
select is(pg_temp.compare(0.42, 120), 'the same', 'random pushes (seed 0.42) get the same answers with a table and without');
select cmp_ok((select count(*) from syncline.conflicts where scope = 'real'), '>', 10::bigint, 'among them conflicts');
select cmp_ok((select count(*) from syncline.operations where scope = 'real' and verdict = 'rejected'), '>', 10::bigint, 'and rejections');
select is(pg_temp.disturb(0.17, 150), 'agreed', 'with direct writes among them (seed 0.17), rows and records agree');
select cmp_ok((select count(*) from syncline.entities where scope ~ 'wild' and fields::text ~ 'server'), '>', 0::bigint, 'and the server wrote some');

select * from finish();
rollback;
