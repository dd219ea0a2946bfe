-- Registered tables: what devices write lands in columns, and what the database refuses is refused alone.
begin;
\ir support/sync.psql
select no_plan();

select is(syncline.register_table('pin', 'test_pins', p_fields => null), 0::bigint, 'an empty table is registered');
select is(syncline.register_table('form', 'test_forms'), 0::bigint, 'so is its child');
select pg_temp.become('ada', array['team', 'other']);

select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(1, 'create', 'pin', 'p1', '{"title": "Valve", "lat": 59.5, "seen": "2026-05-01T12:00:00.000Z", "tags": ["a", "b"], "extra": {"x": [1]}}'),
  pg_temp.op(2, 'create', 'form', '00000000-0000-0000-0000-00000000000a', '{"pin": "p1", "body": "first"}')])), '2', 'a push of two types applies');
select row_eq($$ select title, lat, seen, tags, extra, state, clock from public.test_pins where scope = 'team' and id = 'p1' $$,
  row('Valve'::text, 59.5::float8, '2026-05-01 12:00:00+00'::timestamptz, array['a', 'b'], '{"x": [1]}'::jsonb, 'open'::text, '{"adaphone": 1}'::jsonb),
  'it lands in real columns, with the clock, and defaults where a field is absent');
select is((select pin from public.test_forms), 'p1', 'and so does its child');
select is(pg_temp.record('team', 'pin', 'p1') ->> 'state', null, 'until the next push or pull, the record is what the device wrote');
select is(pg_temp.changes(pg_temp.pull('team')) #>> '{pin/p1,state}', 'open', 'then the default has come back');
select is(pg_temp.record('team', 'pin', 'p1') ->> 'seen', '2026-05-01T12:00:00.000Z', 'a moment keeps the form in which it was written');
select is((select fields -> 'state' ->> 0 from syncline.entities where entity_id = 'p1'), 'server', 'as a write of the server');
select is((select clock from public.test_pins), (select clock from syncline.entities where entity_id = 'p1'), 'and the row has its clock');
select is(pg_temp.pull('team') -> 'has_more', 'false', 'there is no end of it: there is');
select is((select count(*) from syncline.captures), 0::bigint, 'nothing of our own is captured');
select is((select head from syncline.scopes where scope = 'team'), 3::bigint, 'versions are dense');

-- Updates and deletions.
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(3, 'update', 'pin', 'p1', '{"lat": null, "title": "Pipe"}', '{"adaphone": 1, "server": 3}')])), '0 applied', 'an update applies');
select is((select concat_ws('/', title, lat, state) from public.test_pins), 'Pipe/open', 'its fields are set and removed, and no others');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(4, 'delete', 'form', '00000000-0000-0000-0000-00000000000a', null, '{"adaphone": 2}'),
  pg_temp.op(5, 'delete', 'pin', 'p1', null, '{"adaphone": 3, "server": 3}')])), '0 applied applied', 'child and parent are deleted in one push');
select is((select count(*) from public.test_pins) + (select count(*) from public.test_forms), 0::bigint, 'and their rows are gone');

-- Bad values, each alone among good ones.
create function pg_temp.bad(p_sequence bigint, p_payload jsonb) returns text language sql as $$
  select pg_temp.verdicts(pg_temp.push('team', array[
    pg_temp.op(p_sequence, 'create', 'pin', 'g' || p_sequence, '{"title": "good"}'),
    pg_temp.op(p_sequence + 1, 'create', 'pin', 'b' || p_sequence, p_payload),
    pg_temp.op(p_sequence + 2, 'create', 'pin', 'h' || p_sequence, '{"title": "good"}')]))
$$;
select is(pg_temp.bad(10, '{"title": 1}'), '2 rejected/invalid_value/title', 'another kind of value');
select is(pg_temp.bad(20, '{"title": "x", "lat": "north"}'), '2 rejected/invalid_value/lat', 'a text that is no number');
select is(pg_temp.bad(30, '{"title": "x", "seen": "yesterday-ish"}'), '2 rejected/invalid_value/seen', 'a text that is no moment');
select is(pg_temp.bad(40, '{"title": "x", "label": "too long"}'), '2 rejected/invalid_value/label', 'a text too long for its column');
select is(pg_temp.bad(50, '{"title": "x", "size": 123456}'), '2 rejected/invalid_value/size', 'a number beyond its column');
select is(pg_temp.bad(60, '{"lat": 1}'), '2 rejected/invalid_value/title', 'NOT NULL');
select is(pg_temp.bad(70, '{"title": "x", "lat": 91}'), '2 rejected/invalid_value/lat', 'CHECK');
select is(pg_temp.bad(80, '{"title": "x", "colour": "red"}'), '2 rejected/invalid_value/colour', 'a field without a column');
select is(pg_temp.bad(90, '{"title": "x", "tags": "a"}'), '2 rejected/invalid_value/tags', 'no array');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(100, 'create', 'pin', 'u1', '{"title": "x", "code": "c"}'), pg_temp.op(101, 'create', 'pin', 'u2', '{"title": "x", "code": "c"}'),
  pg_temp.op(102, 'create', 'pin', 'u3', '{"title": "x", "code": "d"}')])), '2 rejected/invalid_value/code', 'unique: the second one');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(110, 'create', 'form', '00000000-0000-0000-0000-0000000000f1', '{"pin": "nowhere"}'),
  pg_temp.op(111, 'create', 'form', '00000000-0000-0000-0000-0000000000f2', '{"pin": "u1"}')])), '1 rejected/invalid_value/pin', 'foreign key');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(120, 'delete', 'pin', 'u1', null, '{"adaphone": 100, "server": 999}')])), '0 rejected/invalid_value/id', 'a parent with children stays');
select is((select count(*) from public.test_pins where id = 'u1'), 1::bigint, 'its row does');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(121, 'create', 'form', 'not-a-uuid', '{"body": "x"}')])), '0 rejected/invalid_value/id', 'an id that the column cannot hold');
select is((select count(*) from public.test_pins where id ~ '^b'), 0::bigint, 'no bad row is there');
select is((select count(*) from public.test_pins where id ~ '^[gh]'), 18::bigint, 'every good one is');
select is((select count(*) from syncline.operations o where verdict = 'rejected' and operation_id = 'op-11'), 1::bigint, 'the verdict is stored');
select is((select count(*) from syncline.operations where error::text ~ 'yesterday|north|too long'), 0::bigint, 'no value is repeated in an error');

-- A trigger of the table's own.
create function public.test_no_bombs() returns trigger language plpgsql as $$
begin
  if new.title = 'bomb' then raise exception 'no bombs here' using column = 'title'; end if;
  if new.title = 'skip' then return null; end if;
  new.title := btrim(new.title);
  return new;
end $$;
create trigger no_bombs before insert or update on public.test_pins for each row execute function public.test_no_bombs();
select is(pg_temp.bad(130, '{"title": "bomb"}'), '2 rejected/invalid_value/title', 'the table''s own exception');
select is((select error ->> 'message' from syncline.operations where operation_id = 'op-131'), 'no bombs here', 'in its own words');
select is(pg_temp.bad(140, '{"title": "  spaced "}'), '3', 'a trigger may change a value');
select is(pg_temp.changes(pg_temp.pull('team')) #>> '{pin/b140,title}', 'spaced', 'and its value comes back');
select is(pg_temp.bad(150, '{"title": "skip"}'), '3', 'or leave the row out');
select is(pg_temp.changes(pg_temp.pull('team')) -> 'pin/b150', 'null', 'which is a deletion');
select is(pg_temp.bad(160, '{"title": "rounded", "size": 1.005}'), '3', 'a type may round');
select is(pg_temp.changes(pg_temp.pull('team')) #> '{pin/b160,size}', '1.01', 'and the number comes back as the column has it');
select is(pg_temp.bad(170, '{"title": "big", "big": "9007199254740993"}'), '3', 'a large integer travels as text');
select is((select big from public.test_pins where id = 'b170'), 9007199254740993, 'and is a number in its column');
select is(pg_temp.changes(pg_temp.pull('team')) #> '{pin/b170,big}', '"9007199254740993"', 'and text again');

-- Transactions: all or none, in the tables too.
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(200, 'create', 'pin', 't1', '{"title": "x"}', '{}', '{"transaction_id": "g"}'),
  pg_temp.op(201, 'create', 'form', '00000000-0000-0000-0000-0000000000f3', '{"pin": "nowhere"}', '{}', '{"transaction_id": "g"}'),
  pg_temp.op(202, 'create', 'pin', 't2', '{"title": "x"}', '{}', '{"transaction_id": "g"}'),
  pg_temp.op(203, 'create', 'pin', 't3', '{"title": "x"}')])),
  '1 rejected/transaction_failed rejected/invalid_value/pin rejected/transaction_failed', 'a member that the database refuses fails its transaction');
select is((select error ->> 'culprit' from syncline.operations where operation_id = 'op-200'), 'op-201', 'and is named as the culprit');
select is((select string_agg(id, ' ') from public.test_pins where id ~ '^t'), 't3', 'nothing of it is in the tables');
set constraints all immediate;
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(210, 'create', 'form', '00000000-0000-0000-0000-0000000000f4', '{"pin": "t4"}', '{}', '{"transaction_id": "h"}'),
  pg_temp.op(211, 'create', 'pin', 't4', '{"title": "x"}', '{}', '{"transaction_id": "h"}')])), '2', 'a child may stand before its parent');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(220, 'create', 'form', '00000000-0000-0000-0000-0000000000f5', '{"pin": "t5"}', '{}', '{"transaction_id": "i"}'),
  pg_temp.op(221, 'create', 'pin', 't5', '{"title": "x"}', '{}', '{"transaction_id": "i"}'),
  pg_temp.op(222, 'create', 'pin', 't6', '{"lat": 1}')])), '2 rejected/invalid_value/title', 'also where another group fails: the constraint is deferrable');
-- Rows are judged as the push leaves them. Only if the database refuses are groups written one after the other, in their order.
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(230, 'create', 'pin', 't7', '{"lat": 1}'), pg_temp.op(231, 'update', 'pin', 't7', '{"title": "x"}', '{"adaphone": 230}'),
  pg_temp.op(232, 'update', 'pin', 'u3', '{"code": "e"}', '{"adaphone": 102, "server": 999}'), pg_temp.op(233, 'create', 'pin', 't8', '{"title": "x", "code": "d"}')])),
  '3 applied', 'two operations of an entity make one row, and a code changes hands');
create function public.test_steps() returns trigger language plpgsql as $$
begin
  if old.state = 'open' and new.state = 'done' then raise exception 'not so fast' using column = 'state'; end if;
  return new;
end $$;
create trigger steps before update on public.test_pins for each row execute function public.test_steps();
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(234, 'update', 'pin', 't8', '{"state": "doing"}', '{"adaphone": 233, "server": 999}'), pg_temp.op(235, 'update', 'pin', 't8', '{"state": "done"}', '{"adaphone": 234, "server": 999}')])),
  '0 applied applied', 'a row that may not jump goes step by step');
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(236, 'update', 'pin', 't7', '{"state": "done"}', '{"adaphone": 231, "server": 999}')])), '0 rejected/invalid_value/state', 'and not otherwise');

-- What waits for what was refused.
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(240, 'create', 'pin', 'w1', '{"lat": 1}'), pg_temp.op(241, 'update', 'pin', 'w1', '{"code": "x"}', '{"adaphone": 240}'),
  pg_temp.op(242, 'create', 'pin', 'w2', '{"title": "x"}', '{}', '{"depends_on": ["op-240"]}'), pg_temp.op(243, 'create', 'pin', 'w3', '{"title": "x"}')])),
  '1 rejected/invalid_value/title deferred deferred', 'its lane and its dependents are deferred');
select is((select string_agg(id, ' ') from public.test_pins where id ~ '^w'), 'w3', 'and not in the table');
select is((select count(*) from syncline.operations where operation_id in ('op-241', 'op-242')), 0::bigint, 'nor is a verdict stored for them');

-- Deleted and made again in one push: nothing of the old row is left.
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(260, 'create', 'pin', 'r1', '{"title": "x", "lat": 1, "state": "z"}')])), '1', 'a row');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(261, 'delete', 'pin', 'r1', null, '{"adaphone": 260, "server": 999}'),
  pg_temp.op(262, 'create', 'pin', 'r1', '{"title": "new"}', '{"adaphone": 261, "server": 999}')])), '0 applied applied', 'deleted and made again');
select row_eq($$ select title, lat, state from public.test_pins where id = 'r1' $$, row('new'::text, null::float8, 'open'::text), 'is a new row, with its defaults');

-- Dry runs.
select is(pg_temp.verdicts(pg_temp.push('team', array[
  pg_temp.op(250, 'create', 'pin', 'd1', '{"title": "x"}'), pg_temp.op(251, 'create', 'pin', 'd2', '{"lat": 1}')], '{"dry_run": true}')),
  '1 rejected/invalid_value/title', 'a dry run knows what the tables would say');
select is((select count(*) from public.test_pins where id ~ '^d'), 0::bigint, 'and writes nothing there');
select is((select count(*) from syncline.captures where entity_id ~ '^d'), 0::bigint, 'nor anything else');

-- The scope is part of everything.
select is(pg_temp.verdicts(pg_temp.push('other', array[pg_temp.op(1, 'create', 'pin', 'u1', '{"title": "theirs", "code": "c"}')])), '1', 'another scope has its own ids and codes');
select is((select count(*) from public.test_pins where id = 'u1'), 2::bigint, 'side by side');
select is(pg_temp.verdicts(pg_temp.push('other', array[
  pg_temp.op(2, 'create', 'form', '00000000-0000-0000-0000-0000000000f6', '{"pin": "t4"}')])), '0 rejected/invalid_value/pin', 'and cannot refer to this one');

select * from finish();
rollback;
