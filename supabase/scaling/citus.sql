-- Scopes spread over the workers of a Citus cluster (docs/scaling.md). Version 1. NOT RUN by this repository's tests, which have no Citus;
-- that every statement names one scope, which is what it rests on, is (scripts/one-scope).
--
-- Run once after the migrations, on the coordinator, as a superuser:  psql -v ON_ERROR_STOP=1 -d app -f citus.sql
-- Needs Citus 12 or later. Registered tables (docs/postgres-tables.md) are not for it: their triggers read transition tables, which
-- distributed tables do not have.

begin;
create extension if not exists citus;

do $$
begin
  if exists (select from syncline.registered_tables) then
    raise exception 'registered tables cannot be distributed: unregister them first';
  end if;
end
$$;

-- The same on every node.
select create_reference_table('syncline.settings');
select create_reference_table('syncline.entity_types');
select create_reference_table('syncline.members');
select create_reference_table('syncline.registered_tables');

-- By scope, and what belongs to a scope on one node.
select create_distributed_table('syncline.scopes', 'scope');
select create_distributed_table('syncline.devices', 'scope', colocate_with => 'syncline.scopes');
select create_distributed_table('syncline.entities', 'scope', colocate_with => 'syncline.scopes');
select create_distributed_table('syncline.operations', 'scope', colocate_with => 'syncline.scopes');
select create_distributed_table('syncline.conflicts', 'scope', colocate_with => 'syncline.scopes');
select create_distributed_table('syncline.captures', 'scope', colocate_with => 'syncline.scopes');

-- The scope that a body names, as the endpoint will read it.
create function syncline.scope_of(p_body text) returns text
language plpgsql immutable set search_path = '' as $$
begin
  -- What no text holds may stand in a payload, and would make the reader fail.
  if syncline.needs_care(p_body) then
    p_body := (select w.body from syncline.without_poison(p_body) w);
  end if;
  return coalesce(p_body::json ->> 'scope', '');
exception when others then
  return '';
end
$$;

-- `syncline.serve` where the scope is: Citus hands a call over when its distribution argument is an argument of the statement. The caller
-- reads the scope from the body; a wrong one is refused, not led astray.
create function syncline.serve_in(p_scope text, p_path text, p_body text, p_claims text, out status int, out body text)
language plpgsql volatile set search_path = '' as $$
begin
  if p_scope is distinct from syncline.scope_of(p_body) then
    body := syncline.problem('invalid_request', syncline.invalid('scope', 'is not the one that the call was routed by'));
    status := 400;
    return;
  end if;
  select s.status, s.body into status, body from syncline.serve(p_path, p_body, p_claims) s;
end
$$;
revoke all on function syncline.scope_of(text), syncline.serve_in(text, text, text, text) from public;
grant execute on function syncline.scope_of(text), syncline.serve_in(text, text, text, text) to syncline_server;

-- Every function on every node, with the types they need.
select create_distributed_function(p.oid::regprocedure)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where p.prokind = 'f' and p.proname <> 'serve_in'
  and (n.nspname = 'syncline' or n.nspname = 'public' and p.proname in ('syncline_push', 'syncline_pull'));
select create_distributed_function('syncline.serve_in(text, text, text, text)', 'p_scope', colocate_with => 'syncline.scopes');
commit;

-- To be seen afterwards: one task, on the worker of the scope.
--   explain (verbose) select status, body from syncline.serve_in('team-1', 'pull', '{"protocol": 1, "scope": "team-1"}', '{}');
