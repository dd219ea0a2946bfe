-- Push: what vectors cannot see. Marks, rows, versions, epochs, poison, settings for the carrier.
begin;
\ir support/wire.psql
select * from no_plan();
select tests.token('ada', 'team');
select set_config('tests.epoch', tests.epoch('team') ->> 'epoch', true);
create function tests.know() returns jsonb language sql as $$ select jsonb_build_object('epoch', current_setting('tests.epoch')) $$;

-- Settings for whatever carries the answer.
select is(current_setting('response.status'), '200', 'a page is 200');
select is(current_setting('response.headers')::jsonb, '[{"syncline-protocol": "1"}]', 'with our header');
select is(tests.push('team', 'd', '{}') ->> 'code', 'server_behind', 'a push without an epoch');
select is(current_setting('response.status'), '409', 'is 409');
select is(current_setting('response.headers')::jsonb, '[{"syncline-protocol": "1"}, {"content-type": "application/problem+json"}]', 'and a problem');
select is((select count(*) from syncline.devices), 0::bigint, 'and counts for nothing');

-- Plain and not plain operations of one batch: versions are dense, in order of first touch.
select is(tests.push('team', 'd', tests.know(),
    tests.op(1, 'create', 'a', '{"x": 1}'), tests.op(2, 'create', 'b', '{"x": 1, "gone": null}'), tests.op(3, 'update', 'b', '{"x": 2}', '{"d": 2}'),
    tests.op(4, 'update', 'none', '{"x": 1}'), tests.op(5, 'create', 'c', '{"x": 1}'), tests.op(6, 'delete', 'nothing')) - 'server_time' - 'results',
  tests.know() || '{"applied": 5, "mark": 1, "version": 3, "limits": {"max_operations": 500, "max_bytes": 8388608}}', 'six operations');
select results_eq($$select entity_id collate "default", version from syncline.entities where scope = 'team' order by version$$,
  $$values ('a', 1::bigint), ('b', 2), ('c', 3)$$, 'three entities');
select is(payload, '{"x": 2}', 'null and absent are one') from syncline.entities where scope = 'team' and entity_id = 'b';
select is(clock, '{"d": 3}', 'the clock of all dots') from syncline.entities where scope = 'team' and entity_id = 'b';
select is((select count(*) from syncline.operations where scope = 'team'), 6::bigint, 'six verdicts');

-- A dry run is judged and not written.
create temp table before_run as
  select (select array_agg(s) from syncline.scopes s) as scopes, (select array_agg(d) from syncline.devices d) as devices,
    (select array_agg(e order by e.entity_id) from syncline.entities e) as entities, (select array_agg(o order by o.idempotency_key) from syncline.operations o) as operations,
    (select count(*) from syncline.conflicts) as conflicts;
select is(a.answer - 'server_time' - 'results', tests.know() || '{"applied": 2, "version": 3, "limits": {"max_operations": 500, "max_bytes": 8388608}}', 'a dry run')
from (select tests.push('team', 'e', tests.know() || '{"dry_run": true, "forgotten_through": 0}',
  tests.op(11, 'create', 'new', '{"x": 1}', '{}', '{"idempotency_key": "e1"}'), tests.op(12, 'delete', 'nothing', null, '{}', '{"idempotency_key": "e3"}'),
  tests.op(13, 'update', 'a', '{"x": 9}', '{}', '{"idempotency_key": "e2", "timestamp": "2026-05-01T12:00:00Z"}')) as answer) a;
select is(row(b.*)::text, row((select array_agg(s) from syncline.scopes s), (select array_agg(d) from syncline.devices d),
    (select array_agg(e order by e.entity_id) from syncline.entities e), (select array_agg(o order by o.idempotency_key) from syncline.operations o),
    (select count(*) from syncline.conflicts))::text, 'it left no trace') from before_run b;

-- Poison: one operation is rejected, the others apply, nothing is raised.
create function tests.poison(p_sequence int, p_payload text) returns text language sql as $$
  select replace(tests.op(p_sequence, 'create', 'p' || p_sequence, '"@"')::text, '"@"', p_payload)
$$;
select collect_tap(is(a.answer ->> 'applied', '1', 'poison ' || left(a.payload, 40)), is(a.answer #>> '{results,0,error,code}', 'invalid_value', 'is rejected'),
  is(a.answer #>> '{results,0,error,field}', a.field, 'with its place'))
from (
  select v.payload, v.field, public.syncline_push((replace((tests.head('team', 'poison') || tests.know()
      || jsonb_build_object('mark', v.n - 1, 'operations', jsonb_build_array('@'::text)))::text, '"@"',
      tests.poison(100 + 2 * v.n::int, v.payload) || ',' || tests.poison(101 + 2 * v.n::int, '{"ok": true}')))::json)::jsonb as answer
  from (values
    (1, '{"a": "x\u0000y"}', '$.a'), (2, '{"a": ["\ud800"]}', '$.a[0]'), (3, '{"a": "\udc00\ud83d\ude00"}', '$.a'), (4, '{"a\u0000": 1}', '$.a'),
    (5, '{"a": 1e400}', '$.a'), (6, '{"a": -1e200000}', '$.a'), (7, '{"a": 9007199254740992}', '$.a'), (8, '{"a": {"b": [1, 1e20]}}', '$.a.b[1]'),
    (9, '{"a": 1, "b": {"c": 1, "c": 1}}', '$.b.c'), (10, '[1]', '$'), (11, '"text"', '$'), (12, '7', '$'),
    (13, '{"a":' || repeat('[', 2000) || repeat(']', 2000) || '}', '$.a' || repeat('[0]', 31) || '[0]'),
    (14, '{"a": ' || repeat('1', 140000) || '}', '$.a'), (15, '{"a\\": "\\\\\u0000"}', '$.a\'), (16, '{"a": "' || repeat('x', 262144) || '"}', null))
    as v(n, payload, field) where v.n < 16) a;
select is((select count(*) from syncline.entities where scope = 'team' and entity_id like 'p%'), 15::bigint, 'and nothing of the poison is there');
select is((public.syncline_push(replace((tests.head('team', 'fine') || tests.know() || jsonb_build_object('operations',
    jsonb_build_array(tests.op(1, 'create', 'fine', '"@"', '{}', '{"idempotency_key": "fine"}'))))::text, '"@"',
    '{"a": "\\u0000", "b": 1e-20000, "c": 9007199254740991, "d": 1.5e300, "e": "\ud83d\ude00", "f": 0.1, "g": 123456789012345678901234567890}')::json)::jsonb)
  ->> 'applied', '1', 'what only looks like poison applies');

-- The hash is over the text as received.
select is((public.syncline_push(replace((tests.head('team', 'fine') || tests.know() || jsonb_build_object('mark', 1, 'operations',
    jsonb_build_array(tests.op(2, 'create', 'hash', '"@"', '{}', jsonb_build_object('idempotency_key', v.key)))))::text, '"@"', v.text)::json)::jsonb) #>> '{results,0,status}',
  v.status, 'payload ' || v.text)
from (values ('hash', '{"a":1,"b":2}', null), ('hash', '{"a":1,"b":2}', 'already_processed'), ('hash', '{"b":2,"a":1}', 'rejected'),
  ('hash', '{"a":1.0,"b":2}', 'rejected'), ('hash', '{"a":1, "b":2}', 'rejected')) as v(key, text, status);

-- Another cluster, or another timeline: the epoch is renewed once, and that stays.
update syncline.scopes set cluster = '1/00000001' where scope = 'team';
select collect_tap(is(a.answer ->> 'code', 'server_behind', 'the database was restored elsewhere'), isnt(a.answer ->> 'epoch', current_setting('tests.epoch'), 'a new epoch'))
from (select tests.push('team', 'd', tests.know() || '{"mark": 1}', tests.op(7, 'create', 'z', '{}')) as answer) a;
select is(cluster, syncline.cluster(), 'which belongs to this one') from syncline.scopes where scope = 'team';
select set_config('tests.epoch', epoch, true) from syncline.scopes where scope = 'team';
select is(tests.push('team', 'd', tests.know() || '{"mark": 1}', tests.op(7, 'create', 'z', '{}')) ->> 'applied', '1', 'under which it goes on');
select is(tests.push('team', 'd', tests.know() || '{"mark": 99}') ->> 'code', 'server_behind', 'a mark that is ahead');
select isnt(epoch, current_setting('tests.epoch'), 'renews it too') from syncline.scopes where scope = 'team';

-- Limits, each with its own code.
update syncline.settings set max_operations = 2, max_payload_bytes = 20, max_bytes = 4096;
select set_config('tests.epoch', epoch, true) from syncline.scopes where scope = 'team';
select is(tests.push('team', 'small', tests.know(), tests.op(1, 'create', 's1', '{}'), tests.op(2, 'create', 's2', '{}'), tests.op(3, 'create', 's3', '{}')) - 'title',
  '{"code": "too_many_operations", "status": 413, "limits": {"max_operations": 2, "max_bytes": 4096}}', 'too many operations');
select is(tests.push('team', 'small', tests.know() || jsonb_build_object('padding', repeat('x', 4096))) ->> 'code', 'body_too_large', 'too large a body');
select is(a.answer #>> '{results,0,error,code}', 'payload_too_large', 'too large a payload') from (select tests.push('team', 'small', tests.know(),
  tests.op(1, 'create', 's1', '{"a": "longer than twenty"}', '{}', '{"idempotency_key": "s1"}'), tests.op(2, 'create', 's2', '{}', '{}', '{"idempotency_key": "s2"}')) as answer) a;
update syncline.settings set max_operations = 500, max_payload_bytes = 262144, max_bytes = 8388608;
select results_eq(format($$select status, (body::json ->> 'code')::text from syncline.serve('push', %L, '{"sub": "ada", "scope": "team"}')$$, v.body),
  format($$values (400, %L)$$, v.code), left(v.body, 20)) from (values
  (repeat('[', 200000), 'too_deep'), ('{"protocol": ' || repeat('[', 200000), 'too_deep'), ('{', 'invalid_request'), ('', 'invalid_request'), ('7', 'invalid_request'),
  ('{"protocol": 2}', 'unsupported_protocol')) as v(body, code);
select tests.token('ada', 'team');

-- An answer holds 1 MiB of records; the pull brings what is absent, and no cursor says otherwise. A page holds as much.
create function tests.large(p_from int, p_kind text, p_base jsonb) returns jsonb[] language sql as $$
  select array_agg(tests.op(n, p_kind, 'large' || n % 10, jsonb_build_object('a', repeat('x', 250000)),
    case when p_base is null then '{}' else jsonb_build_object('large', p_from - 10 + n % 10) end,
    jsonb_build_object('idempotency_key', 'large' || n)))
  from generate_series(p_from, p_from + 5) n
$$;
select is(tests.push('team', 'large', tests.know(), variadic tests.large(1000, 'create', null)) ->> 'applied', '6', 'six large records');
select collect_tap(
  is(jsonb_array_length(a.answer -> 'results'), 6, 'six results'),
  is((select count(*) from jsonb_array_elements(a.answer -> 'results') r where r ? 'record'), 4::bigint, 'four of them with their record'),
  is((select count(*) from jsonb_array_elements(a.answer -> 'results') r where r ->> 'status' = 'already_processed'), 6::bigint, 'all known'),
  ok(not a.answer ? 'cursor', 'and no cursor'))
from (select tests.push('team', 'large', tests.know() || jsonb_build_object('mark', 1, 'cursor', tests.pull('team', 'large', tests.know() || '{"mark": 1}') ->> 'cursor'),
  variadic tests.large(1000, 'create', null)) as answer) a;
select collect_tap(is(jsonb_array_length(p.page -> 'changes'), 4, 'a page holds four'), is(p.page ->> 'has_more', 'true', 'and there is more'))
from (select tests.pull('team', 'large', tests.know() || jsonb_build_object('mark', 2, 'cursor', syncline.cursor_text('team', s,
    (select min(version) - 1 from syncline.entities where entity_id like 'large%'), null))) as page from syncline.scopes s where s.scope = 'team') p;

select * from finish();
rollback;
