-- Who may do what: grants, row level security, claims and scopes.
begin;
\ir support/wire.psql
select * from no_plan();

-- The schema itself.
select is_empty($$
  select c.relname from pg_class c where c.relnamespace = 'syncline'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
$$, 'every table has row level security');
select is_empty($$
  select c.relname, a.grantee::regrole from pg_class c, aclexplode(c.relacl) a
  where c.relnamespace = 'syncline'::regnamespace and a.grantee <> c.relowner
$$, 'nobody but the owner is granted a table');
select is_empty($$
  select p.proname from pg_proc p left join lateral aclexplode(p.proacl) a on true
  where p.pronamespace = 'syncline'::regnamespace and (p.proacl is null or a.grantee = 0 or a.grantee = 'anon'::regrole)
$$, 'no function is executable by public or anon');
select is_empty($$
  select p.proname from pg_proc p, aclexplode(p.proacl) a
  where p.pronamespace = 'syncline'::regnamespace and a.grantee in ('authenticated'::regrole, 'service_role'::regrole)
    and p.proname not in ('push', 'pull')
$$, 'apps may call push and pull, and nothing behind them');
select is_empty($$
  select p.proname from pg_proc p where p.pronamespace = 'syncline'::regnamespace
    and not coalesce('search_path=""' = any (p.proconfig), false)
$$, 'every function has an empty search_path');
select is_empty($$
  select i.indexrelid::regclass from pg_index i join pg_class c on c.oid = i.indrelid
  join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
  where c.relnamespace = 'syncline'::regnamespace and c.relname not in ('settings', 'entity_types', 'members', 'registered_tables', 'capture_key') and a.attname <> 'scope'
$$, 'every index of data begins with the scope');

-- Roles.
set local role anon;
select throws_ok($$select public.syncline_push('{}')$$, '42501', null, 'anon may not push');
select throws_ok($$select public.syncline_pull('{}')$$, '42501', null, 'anon may not pull');
select throws_ok($$select syncline.push('{}')$$, '42501', null, 'anon may not reach behind');
set local role authenticated;
select throws_ok($$select * from syncline.entities$$, '42501', null, 'an app may not read a table');
select throws_ok($$select syncline.serve('pull', '{}', '{"sub": "eve", "scope": "team"}')$$, '42501', null, 'an app may not say who it is');
select throws_ok($$select syncline.renew_epochs()$$, '42501', null, 'an app may not renew epochs');
select throws_ok($$select syncline.purge('team')$$, '42501', null, 'an app may not purge');
reset role;

-- Time: a superuser is believed, for tests. Nobody else is.
select set_config('syncline.now', '7', true);
select is(syncline.clock(), 7::bigint, 'a superuser may say what time it is');
create role tests_mortal;
grant usage on schema syncline to tests_mortal;
grant execute on function syncline.clock() to tests_mortal;
set local session authorization tests_mortal;
select isnt(syncline.clock(), 7::bigint, 'nobody else may');
reset session authorization;
select set_config('syncline.now', '', true);

-- Claims.
select set_config('request.jwt.claims', '', true);
select is(tests.pull('team', 'd') ->> 'code', 'forbidden', 'no token opens nothing');
select is(c.answer, c.code, 'claims ' || c.claims) from (
  select v.claims, v.code, (select tests.pull('team', 'd', '{"user_id": "ada"}') ->> 'code'
    from (select set_config('request.jwt.claims', v.claims, true)) s where s.set_config is not null) as answer
  from (values
    ('{"scope": "team"}', 'forbidden'),
    ('{"sub": 7, "scope": "team"}', 'forbidden'),
    ('{"sub": "", "scope": "team"}', 'forbidden'),
    ('{"sub": "eve", "scope": "team"}', 'wrong_user'),
    ('{"sub": "ada"}', 'forbidden'),
    ('{"sub": "ada", "scope": ""}', 'wrong_scope'),
    ('{"sub": "ada", "scope": 7}', 'forbidden'),
    ('{"sub": "ada", "scope": null}', 'forbidden'),
    ('{"sub": "ada", "scope": []}', 'forbidden'),
    ('{"sub": "ada", "scope": ["team", 7]}', 'forbidden'),
    ('{"sub": "ada", "scope": {"team": true}}', 'forbidden'),
    ('{"sub": "ada", "scope": "other"}', 'wrong_scope'),
    ('{"sub": "ada", "scope": "team"}', null),
    ('{"sub": "ada", "scope": ["other", "team"]}', null)) as v(claims, code)) c;

update syncline.settings set scope_claim = '/app_metadata/teams';
select set_config('request.jwt.claims', '{"sub": "ada", "app_metadata": {"teams": ["red", "blue"]}}', true);
select is(tests.pull('red', 'd') ->> 'code', null, 'one token, two teams: the one');
select is(tests.pull('blue', 'd') ->> 'code', null, 'and the other');
select is(tests.pull('green', 'd') ->> 'code', 'wrong_scope', 'and no third');
update syncline.settings set scope_claim = null;
select is(tests.pull('ada', 'd') ->> 'code', null, 'without a claim, a user has a scope of their own');
select is(tests.pull('red', 'd') ->> 'code', 'wrong_scope', 'and no other');

-- Two teams do not see each other.
update syncline.settings set scope_claim = 'scope';
select tests.token('ada', 'red', 'blue');
select is(tests.push('red', 'd', tests.epoch('red'), tests.op(1, 'create', 'e', '{"a": 1}')) ->> 'applied', '1', 'written in red');
select is(tests.pull('blue', 'd') -> 'changes', '[]', 'not to be seen in blue');
select is(tests.push('blue', 'd', tests.epoch('blue'), tests.op(1, 'create', 'e', '{"a": 2}')) ->> 'applied', '1',
  'the same key, dot and entity in blue are others');
select is(tests.pull('red', 'd') #> '{changes,0,record}', '{"a": 1}', 'red is as it was');

-- A table of members, in place of the claim: a member removed between two pushes.
create or replace function syncline.allowed_scopes() returns text[]
language sql stable security definer set search_path = '' as $$ select syncline.scopes_by_membership() $$;
insert into syncline.members values ('red', 'ada'), ('red', 'bob');
select is(tests.push('red', 'd', tests.epoch('red') || '{"mark": 1}', tests.op(2, 'update', 'e', '{"a": 3}', '{"d": 1}')) #>> '{results,0,status}', 'applied', 'a member pushes');
delete from syncline.members where user_id = 'ada';
select is(tests.push('red', 'd', '{"epoch": "x"}', tests.op(3, 'update', 'e', '{"a": 4}', '{"d": 2}')) ->> 'code', 'forbidden', 'a removed one does not');
select is(tests.pull('red', 'd') ->> 'code', 'forbidden', 'and reads nothing any more');
select is((select payload from syncline.entities where scope = 'red'), '{"a": 3}', 'nothing was written');

select * from finish();
rollback;
