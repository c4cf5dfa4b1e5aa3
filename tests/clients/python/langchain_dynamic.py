# packages: langchain langchain-openai langgraph
# setting: base_url
# The system prompt says the time, so that every request has another one.
import itertools

from langchain.agents import create_agent
from langchain.agents.middleware import dynamic_prompt
from langchain_openai import ChatOpenAI

import talk

clock = itertools.count()
prompt = dynamic_prompt(lambda _: f"{talk.SYSTEM} It is second {next(clock)}.")
model = ChatOpenAI(model=talk.MODEL, base_url=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = create_agent(model, tools=[talk.add], middleware=[prompt])
messages = []
for text in talk.ASKED:
    messages = agent.invoke({"messages": messages + [{"role": "user", "content": text}]})["messages"]
