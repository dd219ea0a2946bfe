-- At most 50 subtransactions in a database transaction: 500 groups, 60 of them bad, end with 440 applied and 60 rejected within 12 pushes.
begin;
\ir support/sync.psql
select no_plan();
select syncline.register_table('pin', 'test_pins');
select pg_temp.become('ada', array['team']);

-- Sends operations until none is answered `retry`: how many pushes it took, and the verdicts.
create function pg_temp.drain(p_scope text, p_operations jsonb[], out pushes int, out applied bigint, out rejected bigint, out bad_at_once boolean)
language plpgsql as $$
declare
  v_left jsonb[] := p_operations;
  v_answer jsonb;
begin
  pushes := 0;
  bad_at_once := true;
  while cardinality(v_left) > 0 and pushes < 100 loop
    pushes := pushes + 1;
    v_answer := pg_temp.push(p_scope, v_left);
    select array_agg(o order by n), coalesce(bad_at_once and bool_and(r #> '{error,retry_after_ms}' = '0'), bad_at_once) into v_left, bad_at_once
    from unnest(v_left) with ordinality as x(o, n)
    join (select e as r from jsonb_array_elements(v_answer -> 'results') e) y on r ->> 'id' = o ->> 'id' and r ->> 'status' = 'retry';
  end loop;
  select count(*) filter (where verdict = 'applied'), count(*) filter (where verdict = 'rejected') into applied, rejected
  from syncline.operations where scope = p_scope and entity_id like p_operations[1] ->> 'entity_id' || '%';
end $$;

-- `p_bad`: which of 500; `p_payload`: what they say.
create function pg_temp.batch(p_name text, p_from int, p_bad int[], p_payload jsonb) returns jsonb[] language sql as $$
  select array_agg(pg_temp.op(p_from + i, 'create', 'pin', p_name || case when i = 1 then '' else '-' || i end,
    case when i = any (p_bad) then p_payload else '{"title": "x"}' end) order by i)
  from generate_series(1, 500) i
$$;

select is(d::text, row(least(pushes, 12), 440, 60, true)::text, 'evenly spread: ' || pushes || ' pushes')
from pg_temp.drain('team', pg_temp.batch('even', 0, array(select i * 8 from generate_series(1, 60) i), '{"title": "x", "lat": 91}')) d;
select is(d::text, row(least(pushes, 12), 440, 60, true)::text, 'one after the other: ' || pushes || ' pushes')
from pg_temp.drain('team', pg_temp.batch('row', 500, array(select i + 200 from generate_series(1, 60) i), '{"lat": 1}')) d;
select is(d::text, row(least(pushes, 12), 440, 60, true)::text, 'values of a bad type: ' || pushes || ' pushes')
from pg_temp.drain('team', pg_temp.batch('type', 1000, array(select i * 8 from generate_series(1, 60) i), '{"title": "x", "lat": "north"}')) d;
select is(d::text, row(least(pushes, 12), 440, 60, true)::text, 'at random, by seed: ' || pushes || ' pushes')
from pg_temp.drain('team', pg_temp.batch('random', 1500, array(
  select i from generate_series(1, 500) i order by md5('seed 7' || i) limit 60), '{"title": "x", "label": "too long"}')) d;
select is(d, row(1, 499::bigint, 1::bigint, true), 'a single bad one costs no second push')
from pg_temp.drain('team', pg_temp.batch('single', 2000, array[321], '{"title": "x", "lat": 91}')) d;
select is((select count(*) from public.test_pins), (4 * 440 + 499)::bigint, 'and the table has what was applied');
select is((select count(*) from syncline.entities where deleted is null), (4 * 440 + 499)::bigint, 'as has the record');

-- Counted where they are begun: functions with an exception block that may write.
set local track_functions = 'all';
create function pg_temp.subtransactions() returns bigint language sql volatile as $$
  select coalesce(sum(calls), 0)::bigint from pg_stat_xact_user_functions
  where schemaname = 'syncline' and funcname ~ '^(write_rows|write_groups|table_\d+_bad_field|settle_clocks|converted|absorb|apply_dry)$'
$$;
create temp table before_it as select pg_temp.subtransactions() as count;
select pg_temp.push('team', pg_temp.batch('count', 3000, array(select i * 8 from generate_series(1, 60) i), '{"title": "x", "lat": "north"}')) is not null;
create temp table after_it as select pg_temp.subtransactions() - count as count from before_it;
select cmp_ok((select count from after_it), '<=', 50::bigint, 'no push uses more than 50 subtransactions');
select cmp_ok((select count from after_it), '>', 40::bigint, 'and this one uses what there is');

select * from finish();
rollback;
