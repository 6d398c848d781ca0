"""Uses the official Python SDK as an app does. One scenario a run:

    sdk.py SCENARIO BASE_URL

Prints one JSON object: what the test then looks for in the sandbox.
"""

import asyncio
import json
import os
import signal
import sys

import phospho

PROJECT = "sdk-project"


def said(**what):
    print(json.dumps(what), flush=True)


def init(url, **more):
    # A tick of an hour: nothing leaves but by flush() or at exit.
    phospho.init(api_key="app-key", project_id=PROJECT, base_url=url, tick=3600, **more)


def strings(url):
    init(url)
    log = phospho.log(input="How do I fix a flat tyre? 🚲", output="Patch it \\ or \"swap\" it.\u2028Done.")
    phospho.flush()
    said(task_id=log["task_id"], input=log["input"], output=log["output"])


def mapping(url):
    init(url)
    log = phospho.log(input={"question": "why", "n": 2**53 + 1}, output={"answer": ["because", None, 1.5]})
    phospho.flush()
    said(task_id=log["task_id"])


def openai_like(url):
    init(url)
    query = {
        "model": "gpt-x",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello"},
        ],
    }
    answer = {
        "id": "chatcmpl-1",
        "model": "gpt-x",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
    log = phospho.log(input=query, output=answer)
    messages = phospho.log(input=query["messages"], output="Hello")
    phospho.flush()
    said(task_id=log["task_id"], input=log["input"], output=log["output"], messages_task_id=messages["task_id"])


def streaming(url):
    init(url)
    answer = phospho.MutableGenerator(generator=(word for word in ["one ", "two ", "three"]), stop=lambda x: x is None)
    log = phospho.log(input="count", output=answer, stream=True)
    spoken = "".join(word for word in answer if word is not None)
    phospho.flush()
    said(task_id=log["task_id"], spoken=spoken)


def streaming_async(url):
    init(url)

    async def words():
        for word in ["eins ", "zwei ", "drei"]:
            yield word

    async def listen():
        answer = phospho.MutableAsyncGenerator(generator=words(), stop=lambda x: x is None)
        log = phospho.log(input="zähle", output=answer, stream=True)
        spoken = "".join([word async for word in answer if word is not None])
        return log, spoken

    log, spoken = asyncio.run(listen())
    phospho.flush()
    said(task_id=log["task_id"], spoken=spoken)


def wrap(url):
    init(url)

    @phospho.wrap
    def complete(prompt, temperature=0.0):
        return f"You said {prompt}"

    @phospho.wrap(stream=True, stop=lambda token: token is None)
    def tokens(prompt):
        yield from ["a", "b", None]

    complete(prompt="hi", temperature=0.5)
    plain = phospho.latest_task_id
    for _ in tokens(prompt="go"):
        pass
    phospho.flush()
    said(task_id=plain, stream_task_id=phospho.latest_task_id)


def metadata(url):
    init(url)
    session = phospho.new_session()
    log = phospho.log(
        input="q",
        output="a",
        session_id=session,
        user_id="user-1",
        version_id="v9",
        flag="success",
        metadata={"tier": "gold", "nested": {"deep": [1, {"x": None}]}},
        own_field="kept",
    )
    phospho.flush()
    said(task_id=log["task_id"], session_id=session)


def feedback(url):
    init(url)
    log = phospho.log(input="q", output="a")
    phospho.flush()
    task = phospho.user_feedback(task_id=log["task_id"], flag="failure", notes="wrong tyre 🛞", source="user")
    said(task_id=log["task_id"], returned=task is not None)


def feedback_first(url):
    """As apps do: the feedback call leaves at once, the log only with the SDK's next tick."""
    init(url)
    task_id = phospho.new_task()
    phospho.log(input="q", output="a", task_id=task_id)
    task = phospho.user_feedback(task_id=task_id, flag="success")
    phospho.flush()
    said(task_id=task_id, returned=task is not None)


def new_task(url):
    init(url)
    task_id = phospho.new_task()
    log = phospho.log(input="q", output="a", task_id=task_id)
    phospho.flush()
    said(task_id=task_id, logged=log["task_id"])


def at_exit(url):
    """Neither flush nor a tick: the SDK sends when the interpreter ends."""
    phospho.init(api_key="app-key", project_id=PROJECT, base_url=url, tick=0.05)
    log = phospho.log(input="last words", output="ok")
    said(task_id=log["task_id"])


def killed(url):
    """The app dies the moment that flush() has returned."""
    init(url)
    log = phospho.log(input="before the end", output="ok")
    phospho.flush()
    said(task_id=log["task_id"])
    os.kill(os.getpid(), signal.SIGKILL)


def langchain(url):
    from langchain_core.runnables import RunnableLambda
    from phospho.integrations import PhosphoLangchainCallbackHandler

    handler = PhosphoLangchainCallbackHandler(
        api_key="app-key", project_id=PROJECT, base_url=url, session_id="chain-session", tick=3600
    )
    chain = RunnableLambda(lambda x: {"text": x["text"].upper()}) | RunnableLambda(lambda x: {"answer": x["text"]})
    chain.invoke({"text": "shout"}, config={"callbacks": [handler]})
    phospho.flush()
    said(task_id=phospho.latest_task_id)


def bulk(url):
    """Many events in one tick: one request."""
    init(url)
    ids = [phospho.log(input=f"q{n}", output=f"a{n}")["task_id"] for n in range(2000)]
    phospho.flush()
    said(first=ids[0], last=ids[-1], count=len(ids))


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in [
        strings, mapping, openai_like, streaming, streaming_async, wrap, metadata, feedback, feedback_first,
        new_task, at_exit, killed, langchain, bulk,
    ]
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](sys.argv[2])
    if sys.argv[1] != "at_exit":
        # The SDK's own end waits for its thread, which sleeps for a whole tick.
        os._exit(0)
