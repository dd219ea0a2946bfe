-- What apps call, and who may.
--
-- Both take the request's body as it is (docs/protocol.md) and give the answer's. `json`, not `jsonb`, because a payload's text
-- is hashed as received. A problem is returned, not raised: what was committed before it (a new epoch) must stay. The HTTP
-- status and headers are left in `response.status` and `response.headers`, in the form that PostgREST documents; whatever
-- else calls these functions reads the same two settings. Without `response.status`, it is 200.

create function public.syncline_push(json) returns json
language plpgsql volatile security invoker set search_path = '' as $$ begin return syncline.push($1); end $$;
comment on function public.syncline_push(json) is 'Syncline: POST /v1/push. Takes and gives JSON (docs/protocol.md).';

create function public.syncline_pull(json) returns json
language plpgsql volatile security invoker set search_path = '' as $$ begin return syncline.pull($1); end $$;
comment on function public.syncline_pull(json) is 'Syncline: POST /v1/pull. Takes and gives JSON (docs/protocol.md).';

-- For servers that verify tokens themselves (`syncline serve --postgres`): one statement per request, so that no lock is held
-- while anything travels. The caller of this function is trusted to say who asks.
create function syncline.serve(p_path text, p_body text, p_claims text,
  out status int, out body text)
language plpgsql volatile security invoker set search_path = '' as $$
declare
  v_body json;
begin
  perform set_config('request.jwt.claims', p_claims, true), set_config('response.status', '', true);
  begin
    v_body := p_body::json;
  exception
    when invalid_text_representation or character_not_in_repertoire or untranslatable_character then
      body := syncline.problem('invalid_request', '{"field": "$", "detail": "is not JSON"}');
    when statement_too_complex then
      body := syncline.problem('too_deep');
  end;
  if body is null then
    body := case p_path
      when 'push' then public.syncline_push(v_body)
      when 'pull' then public.syncline_pull(v_body)
    end::text;
  end if;
  status := coalesce(nullif(current_setting('response.status', true), '')::int, 200);
end
$$;

revoke all on function public.syncline_push(json), public.syncline_pull(json) from public, anon;
grant execute on function public.syncline_push(json), public.syncline_pull(json) to authenticated, service_role, syncline_server;

revoke all on all routines in schema syncline from public, anon, authenticated, service_role;
revoke all on all tables in schema syncline from public, anon, authenticated, service_role, syncline_server;
grant usage on schema syncline to authenticated, service_role, syncline_server;
grant execute on function syncline.push(json), syncline.pull(json) to authenticated, service_role, syncline_server;
grant execute on function syncline.serve(text, text, text), syncline.problem(text, jsonb), syncline.answer_with(int) to syncline_server;
