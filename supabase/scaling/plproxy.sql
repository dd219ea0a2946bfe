-- Scopes spread over several servers by PL/Proxy: this makes a database with the migrations a router (docs/scaling.md). Version 1.
--
-- Every shard is a database with the same migrations, settings and types. A call goes to the one shard that its scope belongs to; the router
-- keeps nothing. Run once, by psql, as a superuser, with a number of shards that is a power of two:
--
--   psql -d router -v shard_0='host=a dbname=app' -v shard_1='host=b dbname=app' -v user=syncline -f plproxy.sql
--
-- Needs PL/Proxy 2.10 or later (Debian: postgresql-15-plproxy).

create extension if not exists plproxy;
create server syncline_shards foreign data wrapper plproxy options (p0 :'shard_0', p1 :'shard_1');
create user mapping for public server syncline_shards options (user :'user');
grant usage on foreign server syncline_shards to syncline_server;

-- The shard of a scope, as a number whose lowest bits count. The same in every version of Postgres, which `hashtext` is not.
create function syncline.shard_of(p_scope text) returns int
language plpgsql immutable set search_path = '' as $$
begin
  return ('x' || left(encode(sha256(convert_to(p_scope, 'UTF8')), 'hex'), 8))::bit(32)::int;
end
$$;

-- The scope that a body names, as the shard will read it. What cannot be read opens nothing, so any shard may refuse it.
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
grant execute on function syncline.shard_of(text), syncline.scope_of(text), syncline.needs_care(text), syncline.without_poison(text)
  to syncline_server;

create function syncline.serve_there(p_path text, p_body text, p_claims text, out status int, out body text)
language plproxy volatile as $$
  cluster 'syncline_shards'; run on syncline.shard_of(syncline.scope_of(p_body)); target syncline.serve;
$$;
grant execute on function syncline.serve_there(text, text, text) to syncline_server;

-- An error of a shard comes with its own code. PL/Proxy's own, that a shard does not answer, has no better one than this.
create or replace function syncline.serve(p_path text, p_body text, p_claims text, out status int, out body text)
language plpgsql volatile set search_path = '' as $$
begin
  select t.status, t.body into status, body from syncline.serve_there(p_path, p_body, p_claims) t;
exception when internal_error then
  status := 503;
  body := syncline.problem('unavailable');
end
$$;

-- The operator's functions for one scope, where it is.
create or replace function syncline.purge(p_scope text, out operations bigint, out tombstones bigint)
language plproxy volatile as $$ cluster 'syncline_shards'; run on syncline.shard_of(p_scope); $$;
create or replace function syncline.renew_epoch(p_scope text) returns void
language plproxy volatile as $$ cluster 'syncline_shards'; run on syncline.shard_of(p_scope); $$;
create or replace function syncline.ledger(p_scope text) returns setof jsonb
language plproxy volatile as $$ cluster 'syncline_shards'; run on syncline.shard_of(p_scope); $$;

-- Those for all scopes, everywhere.
create function syncline.configure_shards(p_types jsonb) returns setof text
language plproxy volatile as $$ cluster 'syncline_shards'; run on all; select syncline.configure_types(p_types)::text as done; $$;
create function syncline.purge_shards(out operations bigint, out tombstones bigint) returns setof record
language plproxy volatile as $$ cluster 'syncline_shards'; run on all; target syncline.purge_all; $$;
create function syncline.renew_shards() returns setof bigint
language plproxy volatile as $$ cluster 'syncline_shards'; run on all; target syncline.renew_epochs; $$;
create or replace function syncline.configure_types(p_types jsonb) returns void
language plpgsql volatile security definer set search_path = '' as $$
begin
  perform syncline.configure_shards(p_types);
end
$$;
create or replace function syncline.purge_all(out operations bigint, out tombstones bigint)
language plpgsql volatile security definer set search_path = '' as $$
begin
  select sum(s.operations), sum(s.tombstones) into operations, tombstones from syncline.purge_shards() s;
end
$$;
create or replace function syncline.renew_epochs() returns bigint
language plpgsql volatile security definer set search_path = '' as $$
begin
  return (select sum(n) from syncline.renew_shards() n);
end
$$;
revoke all on function syncline.shard_of(text), syncline.scope_of(text), syncline.serve_there(text, text, text),
  syncline.configure_shards(jsonb), syncline.purge_shards(), syncline.renew_shards() from public;
