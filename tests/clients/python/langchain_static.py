# packages: langchain langchain-openai langgraph
# setting: base_url
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

import talk

model = ChatOpenAI(model=talk.MODEL, base_url=talk.BASE, api_key=talk.KEY, max_tokens=256)
agent = create_agent(model, tools=[talk.add], system_prompt=talk.SYSTEM)
messages = []
for text in talk.ASKED:
    messages = agent.invoke({"messages": messages + [{"role": "user", "content": text}]})["messages"]
