-- What the tests call: each shows one behaviour.
create table public.notes (id serial primary key, note text not null check (note <> 'bad'), unique (note));
create schema other;
grant usage on schema public, other to anon, authenticated;
grant all on public.notes to authenticated;
grant usage on sequence public.notes_id_seq to authenticated;

create function public.whole(json) returns json language sql as $$ select json_build_object('got', $1) $$;
create function public.greet(name text, how text default 'Good day') returns text language sql as $$ select how || ', ' || name $$;
create function public.add(a int, b int) returns int language sql immutable as $$ select a + b $$;
create function other.where_am_i(json) returns text language sql as $$ select 'other ' || current_setting('search_path') $$;
create function public.twice(a int, b text) returns int language sql as $$ select 1 $$;
create function public.twice(a int, b int) returns int language sql as $$ select 2 $$;
create function public.nothing() returns void language sql as $$ select 1 $$;

create function public.seen() returns json language sql as $$
  select json_build_object('role', current_user, 'session', session_user,
    'claims', current_setting('request.jwt.claims', true)::json, 'headers', current_setting('request.headers', true)::json,
    'method', current_setting('request.method', true), 'path', current_setting('request.path', true),
    'timeout', current_setting('statement_timeout'), 'isolation', current_setting('transaction_isolation'),
    'left', coalesce(current_setting('test.left', true), '')) $$;
create function public.leave() returns text language sql as $$ select set_config('test.left', 'something', true) $$;
create function public.slow(seconds float) returns json language sql as $$ select to_json(pg_sleep(seconds)::text) $$;
create function public.hurried() returns json language sql set statement_timeout = '50ms' as $$ select to_json(pg_sleep(5)::text) $$;

create function public.answer(status text, headers text) returns json language plpgsql as $$
begin
  insert into public.notes (note) values ('answered ' || status);
  perform set_config('response.status', status, true), set_config('response.headers', headers, true);
  return '{"code":"wrong_scope"}';
end $$;
create function public.note(note text) returns int language sql as $$ insert into public.notes (note) values (note) returning 1 $$;
create function public.note_then_fail() returns int language plpgsql as $$
begin
  insert into public.notes (note) values ('never');
  raise sqlstate 'PT402' using message = 'Payment Required', detail = 'Quota exceeded', hint = 'Upgrade your plan';
end $$;
create function public.fail(code text) returns int language plpgsql as $$
begin
  raise exception using errcode = code, message = 'it is said', detail = 'why', hint = 'what to do';
end $$;
create function public.raise_all(message text, detail text) returns int language plpgsql as $$
begin
  raise sqlstate 'PGRST' using message = message, detail = detail;
end $$;
create function public.stop_me() returns int language sql security definer as $$
  select 1 from (select pg_terminate_backend(pg_backend_pid())) as stopped $$;
create function public.denied() returns int language sql as $$ select 1 $$;
revoke all on function public.denied() from public;
create function public.peek() returns bigint language sql as $$ select count(*) from public.notes $$;
create function public.stable_write() returns int language sql stable as $$ select public.note('stable') $$;
