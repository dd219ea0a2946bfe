-- What may be registered, what is refused and why, policies and authorize functions, and what the check reports.
begin;
\ir support/sync.psql
select no_plan();

create function pg_temp.refuses(p_sql text, p_reason text, p_name text) returns text language plpgsql as $$
begin
  execute p_sql;
  return fail(p_name || ': it was registered');
exception when others then
  return ok(sqlerrm ~ p_reason, p_name || ' (' || sqlerrm || ')');
end $$;

-- Keys, columns, kinds of tables.
create table public.t_key (scope text not null, id text not null, title text);
select pg_temp.refuses($$ select syncline.register_table('t', 't_key', p_clock_column => null) $$, 'no primary or unique key', 'a table without a key');
create table public.t_bare (scope text not null, id text primary key, title text);
select pg_temp.refuses($$ select syncline.register_table('t', 't_bare', p_clock_column => null) $$, 'lets scopes learn', 'a key of guessable ids over all scopes');
create table public.t_uuid (scope text not null, id uuid primary key, title text, clock jsonb);
select lives_ok($$ select syncline.register_table('t', 't_uuid') $$, 'a key of random ids over all scopes is taken');
select lives_ok($$ select syncline.unregister_table('t') $$, 'and given up');
create table public.t_unique (scope text not null, id text not null, clock jsonb, slug text unique, primary key (scope, id));
select pg_temp.refuses($$ select syncline.register_table('t', 't_unique') $$, 'slug_key is not within a scope', 'a unique column over all scopes');
create table public.t_columns (scope varchar(10) not null, id point, clock json, must text not null, cash money, gen text generated always as ('x') stored);
select pg_temp.refuses($$ select syncline.register_table('t', 't_columns', p_fields => '{"cash": "cash"}') $$, r, n) from (values
  ('id column id is not text', 'the id''s type'), ('scope column scope is not text', 'the scope''s type'), ('column clock is not jsonb', 'the clock''s type'),
  ('must must have a value', 'a NOT NULL column that nothing fills'), ('money .*cannot travel', 'a type that cannot travel')) v(r, n);
select pg_temp.refuses($$ select syncline.register_table('t', 'test_pins', p_fields => '{"a": "nowhere"}') $$, 'column that the table does not have', 'a field without its column');
select pg_temp.refuses($$ select syncline.register_table('t', 'test_pins', p_fields => '{"a": "title", "b": "title"}') $$, 'two fields', 'two fields for one column');
select pg_temp.refuses($$ select syncline.register_table('t', 'test_pins', p_fields => '{"title": "title", "s": "scope"}') $$, 'a part of its own', 'the scope as a field');
select pg_temp.refuses($$ select syncline.register_table('t', 'test_pins', p_read_only => '{nope}') $$, 'not a field', 'an unknown read-only field');
select pg_temp.refuses($$ select syncline.register_table('T!', 'test_pins') $$, 'entity type', 'a bad name');
create table public.t_null (scope text not null, id text, clock jsonb, title text, unique (scope, id));
select pg_temp.refuses($$ select syncline.register_table('t', 't_null') $$, 'column id may be null', 'an id that may be null');
create view public.t_view as select * from public.test_pins;
select pg_temp.refuses($$ select syncline.register_table('t', 't_view') $$, 'not an ordinary', 'a view');
create table public.t_part (scope text not null, id text not null, clock jsonb, title text, primary key (scope, id)) partition by hash (scope);
select pg_temp.refuses($$ select syncline.register_table('t', 't_part') $$, 'not an ordinary', 'a partitioned table');
create table public.t_child (scope text not null, id text not null, clock jsonb, parent uuid references public.t_uuid, primary key (scope, id));
select syncline.register_table('parent', 't_uuid');
select pg_temp.refuses($$ select syncline.register_table('t', 't_child') $$, 'does not hold the scope', 'a foreign key that crosses scopes');
select syncline.unregister_table('parent');

-- The mapping, the rest, read-only and generated columns, no clock.
create table public.t_map (scope text not null, id bigint not null, name text, secret text default 'hidden', rank int, twice int generated always as (rank * 2) stored,
  more jsonb, primary key (scope, id));
insert into public.t_map (scope, id, name, rank, more) values ('team', 7, 'seven', 1, '{"colour": "red", "none": null}');
select is(syncline.register_table('m', 't_map', p_clock_column => null, p_fields => '{"title": "name", "rank": "rank", "twice": "twice"}', p_rest_column => 'more',
  p_read_only => '{rank}'), 1::bigint, 'fields of other names, and a column for the rest');
select pg_temp.become('ada', array['team']);
select is(pg_temp.changes(pg_temp.pull('team')) -> 'm/7', '{"title": "seven", "rank": 1, "twice": 2, "colour": "red"}', 'a row is a record of its fields and the rest');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(1, 'create', 'm', '8', '{"title": "eight", "shape": [1, {"a": null}]}')])), '1', 'and a record a row');
select row_eq($$ select name, secret, more from public.t_map where id = 8 $$, row('eight'::text, 'hidden'::text, '{"shape": [1, {"a": null}]}'::jsonb), 'what is not mapped has its default');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(2, 'update', 'm', '7', '{"rank": 5}', '{"server": 99}'), pg_temp.op(3, 'create', 'm', '9', '{"twice": 5}'),
  pg_temp.op(4, 'create', 'm', '009', '{}')])), '0 rejected/forbidden/rank rejected/invalid_value/twice rejected/invalid_value/id', 'a column nobody may write; one that is computed; an id in another form');
select is(syncline.register_table('m', 't_map', p_clock_column => null, p_fields => '{"title": "name"}'), 2::bigint, 'registering again takes the new mapping, and what it changes');
select is(pg_temp.changes(pg_temp.pull('team')) -> 'm/7', '{"title": "seven"}', 'on devices too');
select syncline.unregister_table('m');
update public.t_map set name = 'nobody hears';
select is((select count(*) from syncline.captures), 0::bigint, 'a table given up is not captured');
select is((select count(*) from pg_proc where pronamespace = 'syncline'::regnamespace and proname ~ '^table_\d'), 0::bigint, 'and nothing generated is left');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(5, 'update', 'm', '7', '{"anything": "goes"}', '{"server": 99}')])), '0 applied', 'its type goes on without it');

-- Names that are also ours, and names that must be quoted.
create table public."T ""q""" (scope text not null, id text not null, clock jsonb, t text, f text, g text, x float8, key text, record text, entity_id text, p_scope text, p_ids text,
  "select" text default 'it''s', "Ä %I" text, n bigint, row_json jsonb, constraint "odd ""key""" primary key (scope, id));
select is(syncline.register_table('odd', 'public."T ""q"""'), 0::bigint, 'a table of odd names');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(50, 'create', 'odd', 'a',
  '{"t": "t", "f": "f", "g": "g", "x": 1, "key": "k", "record": "r", "entity_id": "e", "p_scope": "s", "p_ids": "i", "Ä %I": "ä", "n": 5, "row_json": {"a": null}}')])), '1', 'takes writes');
select is(pg_temp.changes(pg_temp.pull('team')) -> 'odd/a',
  '{"t": "t", "f": "f", "g": "g", "x": 1, "key": "k", "record": "r", "entity_id": "e", "p_scope": "s", "p_ids": "i", "Ä %I": "ä", "n": 5, "row_json": {"a": null}, "select": "it''s"}', 'and gives them');
update public."T ""q""" set x = 2, p_scope = 'y' where id = 'a';
select is((pg_temp.changes(pg_temp.pull('team')) #>> '{odd/a,x}') || (pg_temp.changes(pg_temp.pull('team')) #>> '{odd/a,p_scope}'), '2y', 'direct ones too');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(51, 'update', 'odd', 'a', '{"n": "much"}', '{"adaphone": 50, "server": 99}')])), '0 rejected/invalid_value/n', 'and names the field at fault');
select syncline.unregister_table('odd');

-- Records that were there before their table.
create table public.t_late (scope text not null, id text not null, clock jsonb, title text, primary key (scope, id));
select pg_temp.push('team', array[pg_temp.op(6, 'create', 'late', 'a', '{"title": "first"}')]) is not null;
select is(syncline.register_table('late', 't_late'), 0::bigint, 'a type with records gets a table');
select is((select title || clock from public.t_late), 'first{"adaphone": 6}', 'they become its rows');
delete from public.t_late;
select is(syncline.register_table('late', 't_late'), 1::bigint, 'once registered, a row that is gone is gone');

-- Policies.
create table public.t_policy (scope text not null, id text not null, clock jsonb, title text, author text, primary key (scope, id));
alter table public.t_policy enable row level security;
select lives_ok($$ select syncline.register_table('p', 't_policy') $$, 'row level security without a policy: Syncline is the only door');
select syncline.unregister_table('p');
select syncline.scope_policy('t_policy');
select lives_ok($$ select syncline.register_table('p', 't_policy') $$, 'the policy that says what the scope check says');
select is((select count(*) from syncline.check_tables() where entity_type = 'p'), 0::bigint, 'the check finds nothing');
create policy only_author_deletes on public.t_policy as restrictive for delete to authenticated using (author = (syncline.claims() ->> 'sub'));
select is((select problem from syncline.check_tables() where entity_type = 'p') ~ 'only_author_deletes says more', true, 'a policy added after registration is reported');
select syncline.unregister_table('p');
select pg_temp.refuses($$ select syncline.register_table('p', 't_policy') $$, 'only_author_deletes says more than the scope check', 'and refused at registration, by name');
create policy others on public.t_policy to service_role using (true);
select pg_temp.refuses($$ select syncline.register_table('p', 't_policy') $$, '^(?!.*others).*$', 'policies of other roles are not looked at');

-- Only the author deletes: an authorize function, asked set-wise.
create table public.asked (claims jsonb, changes syncline.change[]);
create function public.may_write(p_claims jsonb, p_changes syncline.change[]) returns boolean[] language plpgsql as $$
begin
  insert into public.asked values (p_claims, p_changes);
  return array(select case c.operation when 'delete' then c.old_row ->> 'author' = p_claims ->> 'sub' else c.new_row ->> 'author' = coalesce(c.old_row ->> 'author', p_claims ->> 'sub') end
    from unnest(p_changes) with ordinality as c(operation, entity_id, old_row, new_row, n) order by c.n);
end $$;
select pg_temp.refuses($$ select syncline.register_table('p', 't_policy', p_authorize => 'pg_catalog.lower(text)') $$, 'does not take', 'an authorize function of another form');
select lives_ok($$ select syncline.register_table('p', 't_policy', p_authorize => 'public.may_write(jsonb, syncline.change[])') $$, 'with an authorize function, policies on writes may be there');
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(10, 'create', 'p', 'a', '{"author": "ada", "title": "x"}'), pg_temp.op(11, 'create', 'p', 'b', '{"author": "bea"}'),
  pg_temp.op(12, 'create', 'p', 'c', '{"author": "ada"}'), pg_temp.op(13, 'update', 'p', 'c', '{"author": "bea"}', '{"adaphone": 12}')])),
  '1 rejected/forbidden applied rejected/forbidden', 'its refusal is rejected with forbidden, each operation for itself');
select is((select array_agg(concat_ws('/', c.operation, c.entity_id, c.old_row ->> 'author', c.new_row ->> 'author')) from public.asked a, unnest(a.changes) c),
  array['create/a/ada', 'create/b/bea', 'create/c/ada', 'update/c/ada/bea'], 'one call for the batch, each operation with the row before and after it');
select is((select claims ->> 'sub' from public.asked), 'ada', 'and the caller''s claims');
select is((select string_agg(id || author, ' ' order by id) from public.t_policy), 'aada cada', 'what it refused is not in the table');
select pg_temp.become('bea', array['team']);
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(41, 'delete', 'p', 'a', null, '{"adaphone": 10}'), pg_temp.op(42, 'update', 'p', 'a', '{"title": "y"}', '{"adaphone": 10}'),
  pg_temp.op(43, 'update', 'p', 'c', '{"title": "y"}', '{"adaphone": 12}')])), '0 rejected/forbidden deferred applied', 'another one may not delete');
select pg_temp.become('ada', array['team']);
select is(pg_temp.verdicts(pg_temp.push('team', array[pg_temp.op(20, 'delete', 'p', 'a', null, '{"adaphone": 10}')])), '0 applied', 'only the author deletes');
create policy only_mine on public.t_policy as restrictive for select to authenticated using (author = 'me');
select is((select problem from syncline.check_tables() where entity_type = 'p') ~ 'only_mine may show less', true, 'a narrower SELECT policy is reported');
select syncline.unregister_table('p');
select pg_temp.refuses($$ select syncline.register_table('p', 't_policy', p_authorize => 'public.may_write(jsonb, syncline.change[])') $$, 'only_mine may show less than the scope, and a device gets whole scopes',
  'and refused at registration, with the reason, authorize or not');
drop policy only_mine on public.t_policy;
drop policy syncline_scope on public.t_policy;
select pg_temp.refuses($$ select syncline.register_table('p', 't_policy', p_authorize => 'public.may_write(jsonb, syncline.change[])') $$, 'show no row', 'as are policies that show nothing');
create table public.t_force (like public.t_policy including all);
alter table public.t_force force row level security;
select pg_temp.refuses($$ select syncline.register_table('p', 't_force') $$, 'forces row level security', 'forced row level security');
create table public.t_rights (like public.t_policy including all);
grant update (title) on public.t_rights to authenticated;
select pg_temp.refuses($$ select syncline.register_table('p', 't_rights') $$, 'rights on its column title', 'rights on single columns');

-- Drift.
create table public.t_drift (scope text not null, id text not null, clock jsonb, a text, b text default 'x', c text, primary key (scope, id));
select syncline.register_table('d', 't_drift');
select is((select count(*) from syncline.check_tables() where entity_type = 'd'), 0::bigint, 'nothing has drifted');
alter table public.t_drift alter column a type int using null, alter column b set default 'y', drop column c, add column must text not null default 'z', disable trigger zz_syncline_update;
alter table public.t_drift alter column must drop default;
select set_eq($$ select problem from syncline.check_tables() where entity_type = 'd' $$, array['its column a is now of type integer, it was text', 'the default of its column b has changed',
  'its column c is gone', 'its column must must have a value, has no default, and no field is mapped to it',
  'its trigger zz_syncline_update is missing or does not fire always: what was written meanwhile is not known'], 'every drift is reported');
select is(pg_temp.push('team', array[pg_temp.op(30, 'create', 'd', 'x', '{"b": "1"}'), pg_temp.op(31, 'create', 'free', 'x', '{}')]) #>> '{results,0,status}', 'retry',
  'what a table that changed cannot take is asked again later');
select is((select count(*) from syncline.entities where entity_type = 'free'), 1::bigint, 'and all else goes on');
drop table public.t_drift;
select is((select problem from syncline.check_tables() where entity_type = 'd'), 'its table is gone', 'so is a table that is gone');
insert into syncline.captures (scope, entity_type, entity_id) values ('team', 'd', 'x');
select isnt(pg_temp.pull('team') -> 'cursor', null, 'pulls go on without it');
select is(pg_temp.push('team', array[pg_temp.op(32, 'create', 'd', 'y', '{"b": "1"}')]) #>> '{results,0,error,code}', 'table_changed', 'and pushes say so');
select lives_ok($$ select syncline.unregister_table('d') $$, 'it can be given up');

-- Rights.
create table public.t_rights2 (like public.t_policy including all);
select syncline.register_table('r', 't_rights2');
set local role authenticated;
select throws_ok($$ select syncline.table_put('r', 'team', '{}', '{}', '{}', '{}', '{}') $$, '42501', null, 'nobody is granted what was generated');
select throws_ok($$ select * from syncline.captures $$, '42501', null, 'nor the captures');
select throws_ok($$ select syncline.register_table('x', 't_rights2') $$, '42501', null, 'nor registration');
reset role;
select is((select count(*) from pg_proc p where p.pronamespace = 'syncline'::regnamespace and p.proname ~ '^table_' and (has_function_privilege('authenticated', p.oid, 'execute') or has_function_privilege('anon', p.oid, 'execute'))),
  0::bigint, 'not one of them');
select is((select count(*) from pg_proc p where p.pronamespace = 'syncline'::regnamespace and p.proname ~ '^table_' and not coalesce(p.proconfig, '{}') @> array['search_path=""']), 0::bigint, 'each has a fixed search_path');

select * from finish();
rollback;
