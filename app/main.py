"""Entry of the app; one file per page. Run by `forecast app CONFIG`, which sets FORECAST_OUTPUT."""

import streamlit as st

# An emoji: the icon of a material symbol would be fetched from its maker's servers.
st.set_page_config(page_title="forecast", page_icon="📈", layout="wide")
pages = [st.Page("pages/models.py", title="Models", icon=":material/leaderboard:", default=True)]
st.navigation(pages, position="top").run()
