-- Pull and retention: pages, horizons, the plan.
begin;
\ir support/wire.psql
select * from no_plan();
select tests.token('ada', 'team');
select set_config('tests.epoch', tests.epoch('team') ->> 'epoch', true);
create function tests.know() returns jsonb language sql as $$ select jsonb_build_object('epoch', current_setting('tests.epoch')) $$;
create function tests.at(p_days numeric) returns void language sql as $$
  select set_config('syncline.now', (1777636800000 + p_days * 86400000)::bigint::text, true)
$$;
select tests.at(0);
select is(tests.push('team', 'd', tests.know(), variadic array_agg(tests.op(n, 'create', 'e' || n, jsonb_build_object('n', n)))) ->> 'applied', '20', 'twenty')
from generate_series(1, 20) n;
select is(tests.push('team', 'd', tests.know() || '{"mark": 1}', tests.op(21, 'delete', 'e3', null, '{"d": 3}')) ->> 'version', '21', 'one deleted');

select collect_tap(is(jsonb_array_length(p.page -> 'changes'), 7, 'a page'), is(p.page ->> 'has_more', 'true', 'and more'),
  is(p.page #>> '{changes,6,version}', '8', 'in order of version'))
from (select tests.pull('team', 'r', tests.know() || '{"limit": 7}') as page) p;
select is(tests.pull('team', 'r', tests.know() || '{"entity_types": ["form"]}') -> 'changes', '[]', 'a filter');

-- One index range scan, at any length of the history.
create function tests.plan(p_sql text) returns text language plpgsql as $$
declare v_line text; v_plan text := '';
begin
  for v_line in execute 'explain (costs off) ' || p_sql loop v_plan := v_plan || v_line || E'\n'; end loop;
  return v_plan;
end
$$;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
select matches(tests.plan($$select * from syncline.entities c where c.scope = 'team' and c.version > 5 order by c.version limit 1001$$),
  'Index Scan using entities_by_version', 'a page is a range of the index');
select unalike(tests.plan($$select * from syncline.entities c where c.scope = 'team' and c.version > 5 order by c.version limit 1001$$), '%Sort%', 'and needs no sort');
reset enable_seqscan;
reset enable_bitmapscan;

-- Retention.
select set_config('tests.old', tests.pull('team', 'r', tests.know() || '{"limit": 2}') ->> 'cursor', true);
select set_config('tests.new', tests.pull('team', 'r', tests.know()) ->> 'cursor', true);
select is(tests.push('team', 'd', tests.know() || '{"mark": 2, "forgotten_through": 10}') ->> 'mark', '3', 'ten are forgotten');
select tests.at(89);
select results_eq($$select * from syncline.purge('team')$$, $$values (0::bigint, 0::bigint)$$, 'nothing goes before 90 days');
select tests.at(91);
select results_eq($$select * from syncline.purge('team')$$, $$values (10::bigint, 0::bigint)$$, 'what is forgotten goes after 90 days');
select tests.at(179);
select results_eq($$select * from syncline.purge('team')$$, $$values (0::bigint, 0::bigint)$$, 'tombstones stay');
select tests.at(181);
select results_eq($$select * from syncline.purge_all()$$, $$values (0::bigint, 1::bigint)$$, 'until 180 days');
select is(tests.pull('team', 'r', tests.know() || jsonb_build_object('cursor', current_setting('tests.old'))) ->> 'reset', 'true', 'an older cursor starts anew');
select is(tests.pull('team', 'r', tests.know() || jsonb_build_object('cursor', current_setting('tests.new'))) ->> 'reset', 'false', 'a newer one goes on');
select is(tests.pull('team', 'r', tests.know() || '{"cursor": "garbage"}') ->> 'reset', 'true', 'as does nonsense');
select is(tests.pull('team', 'r', tests.know() || jsonb_build_object('cursor', c.text)) ->> 'reset', 'true', 'cursor ' || c.text) from (values
  (''), ('p1'), ('p1.1.1'), ('p1.99999999999999999.0.x.00000000000000000000000000000000'), ('p2.1.0.x.00000000000000000000000000000000'), (repeat('x', 40000))) as c(text) where length(c.text) < 100;

select is(syncline.renew_epochs(), 1::bigint, 'the operator renews epochs');
select is(tests.pull('team', 'r', tests.know()) ->> 'code', 'server_behind', 'and devices hear of it');

select * from finish();
rollback;
