-- The example schema: it can be brought in as it is, its tables are sound, and a team works on it.
begin;
\ir support/sync.psql
select no_plan();
\ir ../seed.sql

select is((select string_agg(entity_type, ' ' order by entity_type) from syncline.registered_tables), 'form photo pin', 'its tables are registered');
select is((select count(*) from syncline.check_tables()), 0::bigint, 'and sound');
insert into syncline.members (scope, user_id) values ('north', 'ada'), ('north', 'bea');
select pg_temp.become('ada', array['south']);
select is((pg_temp.changes(pg_temp.pull('north')) #> '{pin/019de368-f600-7000-8000-000000000001}') - 'created_at'::text, '{"title": "Leaking valve", "status": "open", "x": 0.25, "y": 0.5}', 'a member of the team gets its rows');
select is(pg_temp.pull('south') ->> 'code', 'wrong_scope', 'and not those of a team that only the token names');
select is(pg_temp.verdicts(pg_temp.push('north', array[
  pg_temp.op(1, 'create', 'form', '00000000-0000-0000-0000-00000000000b', '{"pin_id": "00000000-0000-0000-0000-00000000000a", "kind": "defect"}', '{}', '{"transaction_id": "t"}'),
  pg_temp.op(2, 'create', 'pin', '00000000-0000-0000-0000-00000000000a', '{"title": "Crack", "author": "ada", "floor": 3}', '{}', '{"transaction_id": "t"}'),
  pg_temp.op(3, 'create', 'photo', '00000000-0000-0000-0000-00000000000c', '{"pin_id": "00000000-0000-0000-0000-00000000000a", "path": "x"}'),
  pg_temp.op(4, 'create', 'pin', '00000000-0000-0000-0000-00000000000d', '{"title": "As Bea", "author": "bea"}'),
  pg_temp.op(5, 'create', 'pin', '00000000-0000-0000-0000-00000000000e', '{"title": ""}')])),
  '2 rejected/forbidden/path rejected/forbidden rejected/invalid_value/title', 'pushes obey its rules');
select row_eq($$ select title, status, extra, created_at is not null from public.pins where id = '00000000-0000-0000-0000-00000000000a' $$,
  row('Crack'::text, 'open'::text, '{"floor": 3}'::jsonb, true), 'a pin has its columns, defaults and the rest');
select pg_temp.become('bea', array['north']);
select is(pg_temp.verdicts(pg_temp.push('north', array[pg_temp.op(11, 'delete', 'pin', '00000000-0000-0000-0000-00000000000a', null, '{"adaphone": 2, "server": 99}')])),
  '0 rejected/forbidden', 'only its author deletes a pin');
select pg_temp.become('ada', array['north']);
select is(pg_temp.verdicts(pg_temp.push('north', array[pg_temp.op(6, 'delete', 'pin', '00000000-0000-0000-0000-00000000000a', null, '{"adaphone": 2, "server": 99}')])), '0 applied', 'its author does');
select is(pg_temp.changes(pg_temp.pull('north')) -> 'form/00000000-0000-0000-0000-00000000000b', 'null', 'and the pin''s forms go with it, on devices too');

-- The API's own roles see one's teams, and what they write reaches devices.
grant select, insert on public.pins to authenticated;
set local role authenticated;
select set_eq($$ select distinct team_id from public.pins $$, array['north'], 'the API shows the rows of one''s teams');
insert into public.pins (team_id, id, title) values ('north', '00000000-0000-0000-0000-00000000000f', 'By the API');
select throws_ok($$ insert into public.pins (team_id, id, title) values ('south', '00000000-0000-0000-0000-00000000000f', 'x') $$, '42501', null, 'and takes no others');
reset role;
select is(pg_temp.changes(pg_temp.pull('north')) #>> '{pin/00000000-0000-0000-0000-00000000000f,title}', 'By the API', 'what it writes reaches devices');

select * from finish();
rollback;
