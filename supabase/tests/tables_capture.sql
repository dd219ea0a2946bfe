-- Direct writes to a registered table: captured without a lock of the scope, given to devices by the next push or pull.
begin;
\ir support/sync.psql
select no_plan();

-- Adoption.
insert into public.test_pins (scope, id, title, seen) values ('team', 'old', 'was here', '2020-01-01 00:00:00+02'), ('other', 'old', 'there', null);
select is(syncline.register_table('pin', 'test_pins'), 2::bigint, 'existing rows are adopted at registration');
select is(syncline.register_table('form', 'test_forms'), 0::bigint, 'a child');
select pg_temp.become('ada', array['team', 'other']);
select is(pg_temp.changes(pg_temp.pull('team')), '{"pin/old": {"title": "was here", "state": "open", "seen": "2019-12-31T22:00:00+00:00"}}', 'and reach devices');
select row_eq($$ select version, created ->> 0, (created ->> 1)::int, clock, payload ->> 'title' from syncline.entities where scope = 'team' $$,
  row(1::bigint, 'server'::text, 1, '{"server": 1}'::jsonb, 'was here'::text), 'each with a version and the dot (server, version)');
select results_eq($$ select scope, clock from public.test_pins order by 1 $$, $$ values ('other', '{"server": 1}'::jsonb), ('team', '{"server": 1}') $$, 'the rows have the clock');

-- Insert, update, delete by somebody else.
insert into public.test_pins (scope, id, title, lat) values ('team', 'new', 'by hand', 1);
update public.test_pins set title = 'by hand too' where scope = 'team' and id = 'old';
select is((select head from syncline.scopes where scope = 'team'), 1::bigint, 'a direct write takes no version');
select is((select count(*) from syncline.captures), 2::bigint, 'it is noted');
select is(pg_temp.changes(pg_temp.pull('team')), '{"pin/old": {"title": "by hand too", "state": "open", "seen": "2019-12-31T22:00:00+00:00"}, "pin/new": {"title": "by hand", "lat": 1, "state": "open"}}', 'and given to devices by the next pull');
select is((select fields from syncline.entities where scope = 'team' and entity_id = 'old'), jsonb_build_object('title', jsonb_build_array('server', 3, (select changed_at from syncline.entities where scope = 'team' and entity_id = 'old'))), 'only what changed has the new dot');
select is((select clock from public.test_pins where scope = 'team' and id = 'old'), '{"server": 3}', 'and the row the clock');
select is((select count(*) from syncline.captures), 0::bigint, 'nothing waits any more');
update public.test_pins set title = title, clock = '{}' where scope = 'team' and id = 'old';
select is(pg_temp.pull('team') #>> '{changes,1,version}', '3', 'a write that changes nothing gives no version');
select is((select clock from public.test_pins where scope = 'team' and id = 'old'), '{"server": 3}', 'and a clock made by hand does not stay');
delete from public.test_pins where scope = 'team' and id = 'new';
select is(pg_temp.changes(pg_temp.pull('team')) -> 'pin/new', 'null', 'a deleted row is a tombstone');
insert into public.test_pins (scope, id, title) values ('team', 'new', 'again');
select is(pg_temp.changes(pg_temp.pull('team')) -> 'pin/new', '{"title": "again", "state": "open"}', 'and may come back');
select is((select created ->> 0 || (fields = '{}')::text from syncline.entities where scope = 'team' and entity_id = 'new'), 'servertrue', 'as a new record');

-- Moved to another scope.
update public.test_pins set scope = 'other' where scope = 'team' and id = 'new';
select is(pg_temp.changes(pg_temp.pull('team')) -> 'pin/new', 'null', 'a row moved to another scope is deleted in the one');
select is(pg_temp.changes(pg_temp.pull('other')) #>> '{pin/new,title}', 'again', 'and created in the other');

-- Before a push is judged, what others wrote is known.
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(1, 'create', 'pin', 'p', '{"title": "ada"}')])), '1', 'a record');
update public.test_pins set title = 'the office' where scope = 'team' and id = 'p';
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(2, 'update', 'pin', 'p', '{"title": "ada again", "lat": 5}', '{"adaphone": 1}', '{"timestamp": "2020-01-01T00:00:00.000Z"}')])),
  '0 merged', 'an update that has not seen a direct write meets it');
select row_eq($$ select title, lat from public.test_pins where id = 'p' $$, row('the office'::text, 5::float8), 'the later one wins, the others'' fields stand');
select is((select conflict #>> '{fields,title,winner}' from syncline.conflicts where entity_id = 'p'), 'theirs', 'and the ledger has it');
delete from public.test_pins where scope = 'team' and id = 'p';
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(3, 'update', 'pin', 'p', '{"lat": 6}', '{"adaphone": 2}')])), '0 merged', 'an update that has not seen a deletion by hand');
select row_eq($$ select title, lat from public.test_pins where id = 'p' $$, row('the office'::text, 6::float8), 'revives the row, with its last values');

-- What triggers do while we write is not ours.
create function public.test_cascade() returns trigger language plpgsql as $$
begin
  insert into public.test_forms (scope, id, pin, body) values (new.scope, md5(new.id)::uuid, new.id, 'made by a trigger');
  return null;
end $$;
create trigger make_form after insert on public.test_pins for each row when (new.title = 'with form') execute function public.test_cascade();
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(4, 'create', 'pin', 'c', '{"title": "with form", "state": "x"}')])), '1', 'a push whose row makes another one');
select is((select count(*) from syncline.captures), 1::bigint, 'only that one is captured');
select is(pg_temp.changes(pg_temp.pull('team')) -> ('form/' || md5('c')::uuid), '{"pin": "c", "body": "made by a trigger"}', 'and reaches devices');
create table public.test_notes (scope text not null, id int not null, form uuid, clock jsonb, done boolean not null, primary key (scope, id),
  foreign key (scope, form) references public.test_forms (scope, id) on delete cascade);
select syncline.register_table('note', 'test_notes');
insert into public.test_notes values ('team', 1, md5('c')::uuid, null, false);
select is(pg_temp.changes(pg_temp.pull('team')) -> 'note/1', jsonb_build_object('form', md5('c')::uuid, 'done', false), 'a grandchild');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(5, 'delete', 'form', (md5('c')::uuid)::text, null, '{"server": 99}')])), '0 applied', 'a deletion that cascades');
select is(pg_temp.changes(pg_temp.pull('team')) -> 'note/1', 'null', 'takes the grandchild with it on devices');

-- A trigger that stamps every change.
create function public.test_stamp() returns trigger language plpgsql as $$ begin new.author := 'stamp ' || coalesce(substr(old.author, 7)::int + 1, 1); return new; end $$;
create trigger stamp before insert or update on public.test_pins for each row execute function public.test_stamp();
insert into public.test_pins (scope, id, title) values ('team', 'stamped', 'x');
select is(pg_temp.changes(pg_temp.pull('team')) #>> '{pin/stamped,author}', 'stamp 2', 'a stamp that our clock caused is known');
select is('stamp 2', (select author from public.test_pins where id = 'stamped'), 'and is what the table has');
create temp table head_then as select head from syncline.scopes where scope = 'team';
select pg_temp.pull('team') is not null, pg_temp.pull('team') is not null;
select is((select head from syncline.scopes where scope = 'team'), (select head from head_then), 'and there is no end of pulls that stamp again: there is');
select is((select clock from public.test_pins where id = 'stamped'), (select clock from syncline.entities where entity_id = 'stamped'), 'the clock is right');
drop trigger stamp on public.test_pins;

-- The mark of our own writes cannot be made by others.
select set_config('syncline.applying', 'on', true);
insert into public.test_pins (scope, id, title) values ('team', 'sly', 'unseen?');
select is((select count(*) from syncline.captures), 1::bigint, 'a setting does not hide a write');
select set_config('syncline.applying', encode(sha256(convert_to(pg_current_xact_id()::text, 'UTF8')), 'hex'), true);
insert into public.test_pins (scope, id, title) values ('team', 'slyer', 'unseen?');
select is((select count(*) from syncline.captures), 2::bigint, 'nor does a guess');
select set_config('syncline.applying', '', true);
select is((select count(*) from pg_temp.changes(pg_temp.pull('team')) c, jsonb_object_keys(c) k where k ~ 'sly'), 2::bigint, 'both are told');
set local session_replication_role = replica;
insert into public.test_pins (scope, id, title) values ('team', 'replica', 'x');
set local session_replication_role = origin;
select is((select count(*) from syncline.captures), 1::bigint, 'nor does a session without triggers');
grant insert on public.test_pins to authenticated;
set local role authenticated;
insert into public.test_pins (scope, id, title) values ('team', 'api', 'through the API');
reset role;
select is(pg_temp.changes(pg_temp.pull('team')) #>> '{pin/api,title}', 'through the API', 'a role with rights on the table alone is captured');

-- In bulk: set-wise, at most 2,000 rows for one request, and `has_more` until all are told.
insert into public.test_pins (scope, id, title) select 'bulk', 'b' || i, 'row ' || i from generate_series(1, 10000) i;
select pg_temp.become('bea', array['bulk']);
create temp table told (id text);
create function pg_temp.pull_all() returns int language plpgsql as $$
declare
  v_page jsonb := '{"has_more": true}';
  v_pulls int := 0;
begin
  while (v_page -> 'has_more')::boolean loop
    v_page := pg_temp.pull('bulk', v_page ->> 'cursor');
    v_pulls := v_pulls + 1;
    insert into told select c ->> 'entity_id' from jsonb_array_elements(v_page -> 'changes') c;
  end loop;
  return v_pulls;
end $$;
select cmp_ok(pg_temp.pull_all(), '<=', 12, '10,000 rows reach a device by pulling until there is no more');
select is((select concat_ws('/', count(*), count(distinct id)) from told), '10000/10000', 'each once');
select is((select concat_ws('/', count(*), min(version), max(version)) from syncline.entities where scope = 'bulk'), '10000/1/10000', 'each with a version of its own');
select is((select head from syncline.scopes where scope = 'bulk'), 10000::bigint, 'that the head has');

-- Truncate.
truncate public.test_pins cascade;
do $$ begin perform syncline.absorb_scope('bulk'); end $$;
select is((select count(*) from syncline.entities where scope = 'bulk' and entity_type = 'pin' and deleted is null), 0::bigint, 'is a deletion of every row');

-- What no record can hold waits, and is reported; all else goes on.
select pg_temp.become('ada', array['team']);
insert into public.test_pins (scope, id, title, extra) values ('team', 'huge', repeat('x', 1100000), null), ('team', 'fine', 'x', null),
  ('team', 'deep', 'x', (repeat('[', 40) || repeat(']', 40))::jsonb), ('team', 'big', 'x', '{"n": 9007199254740993}'), ('team', E'con\ttrol', 'x', null), ('team', 'far', 'x', '{"n": 1e21}');
select is(pg_temp.changes(pg_temp.pull('team')) -> 'pin/fine', '{"title": "x", "state": "open"}', 'a row beside one that is too large');
select is(pg_temp.changes(pg_temp.pull('team')) #>> '{pin/far,extra,n}', '1000000000000000000000', 'a number that a device may write as well');
select is((select count(*) from syncline.captures where fault is not null), 4::bigint, 'what cannot be a record waits');
select is((select count(*) from syncline.check_tables() where problem ~ 'cannot be a record'), 4::bigint, 'and is reported');
select is(pg_temp.pull('team') ->> 'has_more', 'false', 'pulls end');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(60, 'create', 'pin', 'huge', '{"title": "mine"}')])), '0 rejected/invalid_value/id', 'its id is taken');
update public.test_pins set title = 'small now' where id = 'huge';
select is(pg_temp.changes(pg_temp.pull('team')) #>> '{pin/huge,title}', 'small now', 'until the row changes');

-- A row that nobody noted is found when its id is met.
alter table public.test_pins disable trigger zz_syncline_insert;
insert into public.test_pins (scope, id, title, code) values ('team', 'unseen', 'by stealth', 'k');
alter table public.test_pins enable always trigger zz_syncline_insert;
select is(pg_temp.push('team', array[pg_temp.op(70, 'create', 'pin', 'unseen', '{"title": "mine"}')]) #>> '{results,0,error,code}', 'not_yet', 'the first push is to come again');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(70, 'create', 'pin', 'unseen', '{"title": "mine"}')])), '0 merged', 'and then meets what was there');

select * from finish();
rollback;
